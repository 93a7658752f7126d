//! wrong-world is a component that exports nothing the host knows.

#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

wit_bindgen::generate!({
    inline: "
        package example:other@1.0.0;
        interface greet { hello: func(name: string) -> string; }
        world greeter { export greet; }
    ",
});

struct Component;

impl exports::example::other::greet::Guest for Component {
    fn hello(name: String) -> String {
        format!("hello, {name}")
    }
}

#[cfg(target_arch = "wasm32")]
export!(Component);
