//! The bindings that wit-bindgen makes of `wit/hb.wit`: one module per world, all with the same records.

// The generator's pointer work is the only unsafe code of a plugin.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

/// Everything a plugin may call, and the shared records.
pub mod imports {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package hb:sdk;
            world imports {
                import hb:plugin/types@0.1.0;
                import hb:plugin/log@0.1.0;
                import hb:plugin/series@0.1.0;
                import hb:plugin/output@0.1.0;
                import hb:plugin/http@0.1.0;
                import hb:plugin/socket@0.1.0;
            }
        ",
        world: "hb:sdk/imports",
        generate_all,
        generate_unused_types: true,
        additional_derives: [Clone, PartialEq],
    });
}

/// Exports of a normalizer.
pub mod normalizer {
    wit_bindgen::generate!({
        path: "wit",
        world: "normalizer",
        pub_export_macro: true,
        with: {
            "hb:plugin/types@0.1.0": super::imports::hb::plugin::types,
            "hb:plugin/log@0.1.0": super::imports::hb::plugin::log,
            "hb:plugin/series@0.1.0": super::imports::hb::plugin::series,
        },
    });
}

/// Exports of a source.
pub mod source {
    wit_bindgen::generate!({
        path: "wit",
        world: "source",
        pub_export_macro: true,
        with: {
            "hb:plugin/types@0.1.0": super::imports::hb::plugin::types,
            "hb:plugin/log@0.1.0": super::imports::hb::plugin::log,
        },
    });
}

/// Exports of a sink, with every capability there is: imports that are not used are left out of a component.
pub mod sink {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package hb:sdk;
            world sink {
                import hb:plugin/log@0.1.0;
                import hb:plugin/output@0.1.0;
                import hb:plugin/http@0.1.0;
                import hb:plugin/socket@0.1.0;
                export hb:plugin/consume@0.1.0;
            }
        ",
        world: "hb:sdk/sink",
        pub_export_macro: true,
        with: {
            "hb:plugin/types@0.1.0": super::imports::hb::plugin::types,
            "hb:plugin/log@0.1.0": super::imports::hb::plugin::log,
            "hb:plugin/output@0.1.0": super::imports::hb::plugin::output,
            "hb:plugin/http@0.1.0": super::imports::hb::plugin::http,
            "hb:plugin/socket@0.1.0": super::imports::hb::plugin::socket,
        },
    });
}

pub use imports::hb::plugin::{http, log, output, series, socket, types};
