//! The template that authors start from compiles and passes its own tests.

#[path = "../template/src/lib.rs"]
mod template;
