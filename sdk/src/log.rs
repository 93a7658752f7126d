//! Text for the operator: what a plugin says appears in the host's log, and a panic says why.

use std::sync::Once;

/// Something is lost or cannot go on.
pub fn error(text: &str) {
    write(0, text);
}

/// Something an operator should look at.
pub fn warn(text: &str) {
    write(1, text);
}

/// Something worth knowing, seldom.
pub fn info(text: &str) {
    write(2, text);
}

/// Something for the author of the plugin.
pub fn debug(text: &str) {
    write(3, text);
}

/// Carries a panic's text into the log: a trap keeps only the place in the code.
pub(crate) fn install_panic_hook() {
    // A native test keeps the harness's own hook.
    if cfg!(target_arch = "wasm32") {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| std::panic::set_hook(Box::new(|info| error(&info.to_string()))));
    }
}

#[cfg(target_arch = "wasm32")]
fn write(level: u8, text: &str) {
    crate::wit::log::write(level, text);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: u8, text: &str) {
    crate::testkit::host::log(level, text);
}
