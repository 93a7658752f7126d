//! What is refused before it runs, and that the refusal says what to do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hb::plugin::cache::Origin;
use hb::plugin::{Capability, Grants, Host, HostOptions, Kind, LoadError, NormalizerInstance, Trust};

use crate::support::guests::{Built, FakeHost, HOST, guest, plugin, publisher_key, shipped};

#[test]
fn what_is_no_component_is_named() {
    for (bytes, text) in [
        (&b""[..], "the file is empty"),
        (b"#!/bin/sh", "magic bytes"),
        (b"\0asm\x01\0\0\0", "is a core module, not a component"),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff", "not a WebAssembly component"),
    ] {
        let e = refusal(&guest("hostile"), bytes, &Grants::default(), &Trust::default());
        assert!(e.what().contains(text), "{e}");
        assert!(!e.help().is_empty());
    }
}

#[test]
fn a_component_of_another_world_is_refused() {
    let built = guest("wrong-world");
    let e = refusal(&built, &built.wasm, &Grants::default(), &Trust::default());
    assert!(matches!(e, LoadError::MissingExport { expected: "normalize", .. }), "{e}");
    assert!(e.what().contains("example:other/greet@1.0.0"), "{e}");

    let mut built = guest("hostile");
    built.manifest.kind = Kind::Sink;
    let e = refusal(&built, &built.wasm, &Grants::default(), &Trust::default());
    assert!(matches!(e, LoadError::WrongWorld { .. }), "{e}");
    assert!(e.help().contains("kind: normalizer"), "{}", e.help());
}

#[test]
fn an_import_that_nobody_grants_is_named() {
    let built = guest("ungranted");
    let e = refusal(&built, &built.wasm, &Grants::default(), &Trust::default());
    assert!(matches!(&e, LoadError::UnknownImport { import, .. } if import == "example:power/teleport@1.0.0"), "{e}");
}

#[test]
fn a_capability_must_be_asked_for_and_given() {
    let given = Grants([Capability::Output].into());
    let mut built = plugin("jsonl");
    let e = refusal(&built, &built.wasm, &Grants::default(), &Trust::default());
    assert!(matches!(e, LoadError::NotGranted { asked: true, given: false, .. }), "{e}");
    assert!(e.what().contains("hb:plugin/output@0.1.0"), "{e}");
    assert_eq!(e.help(), "write `output: stdout` for the sink with plugin `jsonl` in the configuration");

    built.manifest.capabilities.clear();
    let e = refusal(&built, &built.wasm, &given, &Trust::default());
    assert!(matches!(e, LoadError::NotGranted { asked: false, given: true, .. }), "{e}");
    assert_eq!(e.help(), "write `capabilities: [output]` in its plugin.yaml");

    assert_eq!(*plugin("jsonl").load_with(&given).granted(), given.0);
}

#[test]
fn every_shipped_plugin_loads_with_what_it_asks_for() {
    let names = shipped();
    assert!(names.iter().any(|n| n == "file-replay"), "{names:?}");
    for name in names {
        let built = plugin(&name);
        assert_eq!(built.manifest.name, name);
        let asked = Grants(built.manifest.capabilities.clone());
        assert_eq!(*built.load_with(&asked).granted(), asked.0, "{name}");
    }
}

#[test]
fn only_what_a_trusted_key_signed_is_loaded() {
    let built = guest("hostile");
    let good = Trust {
        require_signed: true,
        keys: vec![publisher_key()],
        wasm_signature: Some(built.signature("plugin.wasm")),
        manifest_signature: Some(built.signature("plugin.yaml")),
    };
    let none = Grants::default();
    assert!(HOST.load(&built.wasm, built.manifest.clone(), &none, &good).is_ok());

    let unsigned = Trust { wasm_signature: None, ..good.clone() };
    let e = refusal(&built, &built.wasm, &none, &unsigned);
    assert!(matches!(e, LoadError::Unsigned { file: "plugin.wasm", .. }), "{e}");
    let unsigned = Trust { manifest_signature: None, ..good.clone() };
    let e = refusal(&built, &built.wasm, &none, &unsigned);
    assert!(matches!(e, LoadError::Unsigned { file: "plugin.yaml", .. }), "{e}");

    let mut tampered = built.wasm.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    let e = refusal(&built, &tampered, &none, &good);
    assert!(matches!(e, LoadError::BadSignature { file: "plugin.wasm", .. }), "{e}");
    // Also where signatures are optional, a bad one is worse than none.
    let e = refusal(&built, &tampered, &none, &Trust { require_signed: false, ..good.clone() });
    assert!(matches!(e, LoadError::BadSignature { .. }), "{e}");

    let stranger = minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk.to_base64();
    let e = refusal(&built, &built.wasm, &none, &Trust { keys: vec![stranger], ..good.clone() });
    assert!(matches!(e, LoadError::BadSignature { .. }), "{e}");
    let e = refusal(&built, &built.wasm, &none, &Trust { keys: vec!["junk".into()], ..good });
    assert!(matches!(e, LoadError::BadKey { index: 1, .. }), "{e}");
}

#[test]
fn compiled_code_is_kept_and_never_trusted_unchecked() {
    let dir = tempfile::tempdir().unwrap();
    let built = guest("hostile");
    assert_eq!(origin(dir.path(), &built), Origin::Compiled);
    assert_eq!(origin(dir.path(), &built), Origin::Cached);

    let code = only_file(dir.path(), "cwasm");
    let receipt = only_file(dir.path(), "receipt");
    let sound = std::fs::read(&code).unwrap();

    // One byte changed, in the middle of the machine code.
    let mut changed = sound.clone();
    changed[sound.len() / 2] ^= 0xff;
    std::fs::write(&code, &changed).unwrap();
    assert_eq!(origin(dir.path(), &built), Origin::Repaired);
    assert_eq!(std::fs::read(&code).unwrap(), sound);

    // Torn in the middle; foreign bytes; code without a receipt.
    std::fs::write(&code, &sound[..sound.len() / 2]).unwrap();
    assert_eq!(origin(dir.path(), &built), Origin::Repaired);
    std::fs::write(&code, b"not code at all").unwrap();
    assert_eq!(origin(dir.path(), &built), Origin::Repaired);
    std::fs::remove_file(&receipt).unwrap();
    assert_eq!(origin(dir.path(), &built), Origin::Repaired);
    assert_eq!(origin(dir.path(), &built), Origin::Cached);
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, b"").unwrap();
    let host = Host::new(HostOptions { cache_dir: Some(file.join("below")), ..HostOptions::default() }).unwrap();
    let built = guest("hostile");
    let loaded = host.load(&built.wasm, built.manifest, &Grants::default(), &Trust::default()).unwrap();
    assert_eq!(loaded.origin(), Origin::Compiled);
    assert!(loaded.cache_error().is_some());
    assert!(NormalizerInstance::new(&loaded, "{\"mode\":\"good\"}", FakeHost::default().calls()).is_ok());
}

#[test]
fn a_compiler_of_its_own_gives_the_same_code_and_a_broken_one_costs_nothing() {
    let built = guest("hostile");
    let code = |compiler: &Path| {
        let dir = tempfile::tempdir().unwrap();
        let options = HostOptions { cache_dir: Some(dir.path().to_owned()), compiler: Some(compiler.to_owned()) };
        let host = Host::new(options).unwrap();
        let loaded = host.load(&built.wasm, built.manifest.clone(), &Grants::default(), &Trust::default()).unwrap();
        assert_eq!(loaded.origin(), Origin::Compiled);
        assert!(NormalizerInstance::new(&loaded, "{\"mode\":\"good\"}", FakeHost::default().calls()).is_ok());
        std::fs::read(only_file(dir.path(), "cwasm")).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let (script, asked) = (folder.path().join("hb"), folder.path().join("asked"));
    let text = format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", asked.display(), env!("CARGO_BIN_EXE_hb"));
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let apart = code(&script);
    assert_eq!(std::fs::read_to_string(asked).unwrap(), "compile normalizer\n");
    // One that is not there, one that fails, one that says nothing, one that says something else.
    for broken in ["/no/such/program", "/bin/false", "/bin/true", "/bin/echo"] {
        assert!(code(broken.as_ref()) == apart, "{broken}");
    }
}

fn refusal(built: &Built, wasm: &[u8], grants: &Grants, trust: &Trust) -> LoadError {
    HOST.load(wasm, built.manifest.clone(), grants, trust).expect_err("refused")
}

// A new host each time, as after a restart.
fn origin(dir: &Path, built: &Built) -> Origin {
    let host = Host::new(HostOptions { cache_dir: Some(dir.to_owned()), ..HostOptions::default() }).unwrap();
    let loaded = host.load(&built.wasm, built.manifest.clone(), &Grants::default(), &Trust::default()).unwrap();
    let mut plugin = NormalizerInstance::new(&loaded, "{\"mode\":\"good\"}", FakeHost::default().calls()).unwrap();
    let mut frames = hb::plugin::Frames::new();
    frames.push(b"1", 0, "a").unwrap();
    assert_eq!(plugin.run(&frames).frame, [0]);
    loaded.origin()
}

fn only_file(dir: &Path, extension: &str) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.find(|p| p.extension().is_some_and(|e| e == extension)).expect("a cache file")
}
