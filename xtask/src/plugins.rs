//! Builds all guests to signed components: `<target>/plugins/<name>/` for users, `<target>/plugins-test/<name>/` for tests;
//! and a plugin of somebody else, wherever its crate lies.

mod sign;
mod toolchain;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use toolchain::Toolchain;

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "guest";

/// What `cargo xtask plugins` leaves behind.
#[derive(Debug)]
pub(crate) struct Built {
    /// Holds one folder per plugin, and the publisher's key.
    pub(crate) dir: PathBuf,
    /// Names of the shipped plugins, sorted.
    pub(crate) plugins: Vec<String>,
}

/// One crate that becomes a component.
struct Guest {
    name: String,
    package: String,
    source: PathBuf,
    out: PathBuf,
}

/// Builds, encodes and signs all guests, unless nothing changed since the last time.
pub(crate) fn build(root: &Path) -> Result<Built> {
    let target = target_dir(root);
    let dir = target.join("plugins");
    let mut guests = find_guests(&root.join("plugins"), "hb-plugin-", &dir)?;
    let plugins = guests.iter().map(|g| g.name.clone()).collect();
    guests.extend(find_guests(&root.join("tests/guests"), "hb-guest-", &target.join("plugins-test"))?);

    let stamp_file = dir.join("inputs.sha256");
    // The stamp holds the inputs and the toolchain; looking for the latter may install something, so it comes second.
    let inputs = hash_inputs(root)?;
    let wanted = std::env::var(toolchain::ENV).unwrap_or_default();
    let complete = guests.iter().all(|g| ARTIFACTS.iter().all(|a| g.out.join(a).is_file()));
    let recorded = fs::read_to_string(&stamp_file).unwrap_or_default();
    let mut recorded = recorded.split_whitespace();
    if complete && recorded.next() == Some(&inputs) {
        let made_by = recorded.next().unwrap_or_default();
        if wanted.is_empty() || wanted == made_by {
            eprintln!("plugins: unchanged (built with {made_by}'s toolchain)");
            return Ok(Built { dir, plugins });
        }
    }

    let toolchain = Toolchain::find(TARGET)?;
    eprintln!("plugins: building {} guests with {}", guests.len(), toolchain.describe());
    let mut command = cargo_build(root, &target, &toolchain)?;
    command.arg("--locked").current_dir(root);
    for guest in &guests {
        command.args(["--package", &guest.package]);
    }
    let built = compile(command, &target, &toolchain)?;
    fs::create_dir_all(&dir)?;
    let publisher = sign::Publisher::load_or_create(&dir.join(PUBLISHER))?;
    for guest in &guests {
        place(guest, &built, &publisher)?;
    }
    fs::write(&stamp_file, format!("{inputs} {}\n", toolchain.name()))?;
    Ok(Built { dir, plugins })
}

/// Builds, encodes and signs the plugin whose crate lies in `source`, into a folder of its name in `out`. The key that signs
/// lies there too, and is made the first time.
pub(crate) fn build_one(root: &Path, source: &Path, out: &Path) -> Result<PathBuf> {
    let manifest = source.join("plugin.yaml");
    let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let name = text.lines().find_map(|line| line.strip_prefix("name:")).map(str::trim);
    let is_plain = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let name = name.filter(is_plain).with_context(|| format!("{}: no line `name: NAME`", manifest.display()))?;
    let guest =
        Guest { name: name.to_owned(), package: library(source)?, source: source.to_owned(), out: out.join(name) };

    let toolchain = Toolchain::find(TARGET)?;
    eprintln!("plugins: building {name} with {}", toolchain.describe());
    let target = target_dir(root);
    let mut command = cargo_build(root, &target, &toolchain)?;
    command.current_dir(source);
    let built = compile(command, &target, &toolchain)?;
    fs::create_dir_all(out)?;
    place(&guest, &built, &sign::Publisher::load_or_create(&out.join(PUBLISHER))?)?;
    Ok(guest.out)
}

/// Name of the one library of a crate that becomes a module.
fn library(source: &Path) -> Result<String> {
    let mut command = Command::new(cargo());
    command.current_dir(source).args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo could not read the crate in {} ({})", source.display(), output.status);
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = source.canonicalize()?.join("Cargo.toml");
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let here = packages.filter(|p| p["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest));
    let targets = here.flat_map(|p| p["targets"].as_array().into_iter().flatten());
    let is_module = |t: &&serde_json::Value| t["crate_types"].as_array().is_some_and(|c| c.contains(&"cdylib".into()));
    let name = targets.filter(is_module).find_map(|target| target["name"].as_str());
    let name = name.with_context(|| {
        format!("{} makes no module: write `crate-type = [\"cdylib\", \"rlib\"]` under `[lib]`", manifest.display())
    })?;
    Ok(name.to_owned())
}

/// Encodes, signs and installs what was compiled.
fn place(guest: &Guest, built: &Path, publisher: &sign::Publisher) -> Result<()> {
    let module = built.join(format!("{}.wasm", guest.package.replace('-', "_")));
    let component = encode(&module).with_context(|| format!("component of {}", guest.name))?;
    fs::create_dir_all(&guest.out)?;
    publisher.place(&guest.out.join("plugin.wasm"), &component)?;
    let manifest = guest.source.join("plugin.yaml");
    let manifest = fs::read(&manifest).with_context(|| manifest.display().to_string())?;
    publisher.place(&guest.out.join("plugin.yaml"), &manifest)
}

/// Stem of the key that signs development builds.
const PUBLISHER: &str = "dev-publisher";

const ARTIFACTS: [&str; 4] = ["plugin.wasm", "plugin.wasm.minisig", "plugin.yaml", "plugin.yaml.minisig"];

/// Cargo's target directory.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

fn find_guests(folder: &Path, prefix: &str, out: &Path) -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let source = entry?.path();
        if !source.join("plugin.yaml").is_file() {
            continue;
        }
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        guests.push(Guest { package: format!("{prefix}{name}"), out: out.join(&name), name, source });
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

/// Everything that a guest is made of, as one hash.
fn hash_inputs(root: &Path) -> Result<String> {
    let mut files = vec![root.join("Cargo.toml"), root.join("Cargo.lock"), root.join("xtask/src/plugins.rs")];
    for folder in ["sdk", "plugins", "tests/guests", "xtask/src/plugins"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| file.display().to_string())?;
        hash.update(file.strip_prefix(root).unwrap_or(&file).to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Ok(data_encoding::HEXLOWER.encode(&hash.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// A cargo call for guests; what is built, and where, is added.
fn cargo_build(root: &Path, target: &Path, toolchain: &Toolchain) -> Result<Command> {
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "--profile", PROFILE, "--target", TARGET, "--target-dir"]);
    command.arg(guest_target(target, toolchain));
    toolchain.apply(&mut command);
    // Panic messages carry paths of source files; those of this machine are nobody's business and no two builds' same.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = vec![format!("--remap-path-prefix={}=/hb", root.canonicalize()?.display())];
    flags.push(format!("--remap-path-prefix={}=/hb", root.display()));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    flags.extend(toolchain.sysroots().iter().map(|s| format!("--remap-path-prefix={}=/rust", s.display())));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env_remove("RUSTFLAGS");
    Ok(command)
}

/// A folder of their own: guests and host never wait for each other's lock, nor do the two toolchains mix.
fn guest_target(target: &Path, toolchain: &Toolchain) -> PathBuf {
    target.join("guests").join(toolchain.name())
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a build of guests; returns the folder with the modules.
fn compile(mut command: Command, target: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let status = command.status().context("cargo")?;
    ensure!(status.success(), "cargo could not build the guests ({status})");
    Ok(guest_target(target, toolchain).join(TARGET).join(PROFILE))
}

/// Wraps a core module with the component type it carries.
fn encode(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| module.display().to_string())?;
    let mut encoder = wit_component::ComponentEncoder::default();
    encoder.validate(true);
    encoder.module(&bytes)?;
    encoder.encode()
}
