//! ungranted is a normalizer that also imports something no host grants.

use hb_sdk::{Fault, Frame, Normalizer, Out};

mod bindings {
    #![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
    wit_bindgen::generate!({
        inline: "
            package example:power@1.0.0;
            interface teleport { go: func(place: string) -> bool; }
            world wisher { import teleport; }
        ",
    });
}

/// Wishes for more than it may have.
pub struct Ungranted;

impl Normalizer for Ungranted {
    fn configure(_settings: &str) -> Result<Self, Fault> {
        Ok(Self)
    }

    fn frame(&mut self, _frame: Frame<'_>, out: &mut Out) {
        if bindings::example::power::teleport::go("elsewhere") { out.ignore() } else { out.reject("stayed here") }
    }
}

hb_sdk::export_normalizer!(Ungranted);
