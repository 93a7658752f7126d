//! Guests misbehave in every way they can; the host names the fault, keeps everything innocent, and goes on.

mod isolation;
mod loading;
mod sources;
