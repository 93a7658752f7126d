//! The host's side of the plugin contract, generated from `sdk/wit/hb.wit`.
//!
//! One synthetic world names every interface once, so that all plugin kinds share one set of Rust types. No component
//! implements that world: the linker links interface by interface what a plugin may import, and each kind loads the
//! one interface it exports. Parameters borrow, so that the bytes of a frame are copied once, into the guest's memory.

#![allow(missing_docs, clippy::pedantic, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../../sdk/wit",
    inline: "
        package hb:host;
        world everything {
            import hb:plugin/log@0.1.0;
            import hb:plugin/series@0.1.0;
            import hb:plugin/output@0.1.0;
            import hb:plugin/http@0.1.0;
            import hb:plugin/socket@0.1.0;
            export hb:plugin/normalize@0.1.0;
            export hb:plugin/produce@0.1.0;
            export hb:plugin/consume@0.1.0;
        }
    ",
    world: "hb:host/everything",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    additional_derives: [PartialEq],
});
