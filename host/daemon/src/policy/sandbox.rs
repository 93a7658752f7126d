//! Builds the room a policy runs in: a Luau VM without a clock, random numbers, files or a way to write globals,
//! with a memory limit, with fuel counted in steps, and with arithmetic that is the same on every machine.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Once;

use hb_engine::series::glob;
use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Error, Function, Lua, LuaOptions, StdLib, Table, VmState};

use crate::diagnostic::nearest;

/// Memory of one VM, bytes: a rule holds one row at a time, a check's buffers take 300 bytes a row.
pub(crate) const MEMORY_BYTES: usize = 16 * 1024 * 1024;

/// Steps (loop turns and calls) one row may take: shipped rules take a few dozen.
pub(crate) const FUEL_PER_ROW: u64 = 20_000;

/// Steps the rows of one question may take together, per row: bounds a rule that loops on every row.
pub(crate) const FUEL_SHARE: u64 = 1_000;

/// Steps the trusted loop has between two rows and after an overrun; it takes about 20.
const GRACE: u64 = 64;

/// Steps for running a file's top level, a test file's with its loops over cases included.
pub(crate) const FUEL_LOAD: u64 = 200_000;

/// How far up the stack an overrun looks for the policy's own line: helpers of the prelude lie two deep.
const PLACE_DEPTH: usize = 4;

/// Chunk name of every guest. What a person sees instead is [`super::vm::PolicyVm`]'s business: a path would make
/// decisions depend on where a policy lies.
pub(crate) const CHUNK: &str = "policy.luau";

/// Chunk names of the host's own Luau code.
const PRELUDE: &str = "prelude";
const ROWS: &str = "rows";

/// Libraries and functions a policy does not get, with the way out.
pub(crate) const ABSENT: [(&str, &str); 26] = [
    ("_G", "a policy has no globals; use a `local` or declared `state`"),
    ("buffer", "use tables"),
    ("collectgarbage", "memory is managed by the host"),
    ("coroutine", "a rule answers in one call"),
    ("debug", "the host adds file and line to every error"),
    ("dofile", "a policy is one file"),
    ("gcinfo", "memory is managed by the host"),
    ("getfenv", "a policy has no globals; use a `local` or declared `state`"),
    ("getmetatable", "use plain tables"),
    ("io", "a policy sees only its arguments"),
    ("loadfile", "a policy is one file"),
    ("loadstring", "a policy is one file"),
    ("newproxy", "use plain tables"),
    ("os", "the window's time is `ctx.now_sec`"),
    ("pcall", "let the error out: it becomes the verdict ERROR of this series alone"),
    ("print", "say it in the verdict's `reason`"),
    ("rawequal", "use `==`"),
    ("rawget", "use `t[key]`, or `has(t, key)` to ask first"),
    ("rawlen", "use `#t`"),
    ("rawset", "use `t[key] = value`"),
    ("require", "a policy is one file"),
    ("setfenv", "a policy has no globals; use a `local` or declared `state`"),
    ("setmetatable", "use plain tables"),
    ("vector", "use tables"),
    ("integer", "use numbers"),
    ("xpcall", "let the error out: it becomes the verdict ERROR of this series alone"),
];

/// Members taken from libraries that stay: random, or rounded differently by C compilers.
const ABSENT_MEMBERS: [(&str, &[&str]); 2] =
    [("math", &["random", "randomseed", "noise", "lerp", "map"]), ("table", &["foreach", "foreachi", "getn"])];

/// Library functions the prelude or [`install_math`] replaces. The compiler must not turn calls of them, nor of what
/// was taken away, into built-in instructions, which would run the original.
const REPLACED: [(&str, &[&str]); 4] = [
    (
        "math",
        &[
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "atan2",
            "sinh",
            "cosh",
            "tanh",
            "exp",
            "log",
            "log10",
            "pow",
            "random",
            "randomseed",
            "noise",
            "lerp",
            "map",
        ],
    ),
    ("string", &["byte", "char", "sub", "len", "format", "rep", "find", "match", "gmatch", "gsub", "split"]),
    ("table", &["insert", "unpack", "concat", "sort", "move", "create", "clone", "find", "clear", "remove", "maxn"]),
    ("", &["tostring", "rawset", "rawget", "rawequal", "rawlen", "getmetatable", "setmetatable", "unpack"]),
];

/// Steps left, shared by the host and the VM's interrupt. Counting steps and not time makes the budget itself
/// repeatable.
#[derive(Default)]
pub(crate) struct Fuel {
    /// Of the row being judged.
    left: Cell<u64>,
    /// What `left` began with.
    row: Cell<u64>,
    /// Of all rows of the question.
    shared: Cell<u64>,
    /// How often the overrun was raised in this row.
    raised: Cell<u32>,
    /// Place and cause of the last overrun. Kept beside the raised error, which a guest could swallow.
    blown: RefCell<Option<String>>,
}

impl Fuel {
    /// Allows `steps` until the next call.
    pub(crate) fn fill(&self, steps: u64) {
        self.left.set(steps);
        self.row.set(steps);
        self.shared.set(0);
        self.raised.set(0);
        self.blown.replace(None);
    }

    /// Prepares for `rows` rows; each begins with [`Fuel::next_row`].
    pub(crate) fn fill_rows(&self, rows: usize) {
        self.fill(GRACE);
        self.shared.set(rows as u64 * FUEL_SHARE + FUEL_PER_ROW);
    }

    /// Charges the row before and fuels the next one; false when the question has used up its share.
    fn next_row(&self) -> bool {
        let left = self.shared.get().saturating_sub(self.row.get().saturating_sub(self.left.get()));
        let row = FUEL_PER_ROW.min(left);
        self.shared.set(left);
        self.row.set(row.max(GRACE));
        self.left.set(row.max(GRACE));
        self.raised.set(0);
        if self.blown.borrow().is_some() {
            self.blown.replace(None);
        }
        row > GRACE
    }

    /// What the interrupt said when fuel ran out, if it did.
    pub(crate) fn take_blown(&self) -> Option<String> {
        self.blown.take()
    }

    fn burn(&self, lua: &Lua) -> mlua::Result<VmState> {
        let left = self.left.get();
        if left > 0 {
            self.left.set(left - 1);
            return Ok(VmState::Continue);
        }
        if self.blown.borrow().is_none() {
            let place = (0..PLACE_DEPTH).find_map(|level| lua.inspect_stack(level, guest_place)?).unwrap_or_default();
            self.blown.replace(Some(format!("{place}out of steps: a loop does not end, or does too much")));
        }
        // The trusted loop needs some steps to note the overrun; a guest that swallowed the error gets them twice.
        self.raised.set(self.raised.get() + 1);
        self.left.set(if self.raised.get() < 3 { GRACE } else { 0 });
        Err(Error::runtime("out of steps"))
    }
}

/// `file:line: ` of a frame that belongs to the policy, not to the host's own Luau code.
fn guest_place(frame: &mlua::debug::Debug) -> Option<String> {
    let source = frame.source().short_src?.into_owned();
    let line = frame.current_line()?;
    (source != PRELUDE && source != ROWS).then(|| format!("{source}:{line}: "))
}

/// A VM ready to load one policy.
pub(crate) struct Room {
    pub(crate) lua: Lua,
    pub(crate) fuel: Rc<Fuel>,
    /// The trusted loop's factory, see `prelude.luau`.
    pub(crate) prelude: Table,
}

impl Room {
    /// Builds the VM.
    ///
    /// # Errors
    /// Only when memory is short.
    pub(crate) fn new() -> mlua::Result<Room> {
        static FLAGS: Once = Once::new();
        // Without it `table.move({}, 1, 1e9, 2)` runs for minutes. A flag of the whole process, set before any VM.
        FLAGS.call_once(|| {
            let _ = Lua::set_fflag("LuauTableMoveTimeoutFix", true);
        });
        let libs = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8 | StdLib::BIT | StdLib::BUFFER;
        let lua = Lua::new_with(libs, LuaOptions::default())?;
        let fuel = Rc::new(Fuel::default());
        fuel.fill(FUEL_LOAD);
        install_math(&lua)?;
        let prelude = install_prelude(&lua, &fuel)?;
        let globals = lua.globals();
        for (name, _) in ABSENT {
            globals.raw_remove(name)?;
        }
        for (library, members) in ABSENT_MEMBERS {
            let library: Table = globals.raw_get(library)?;
            for member in members {
                library.raw_remove(*member)?;
            }
        }
        lua.sandbox(true)?;
        lua.globals().set_readonly(true);
        let meter = Rc::clone(&fuel);
        lua.set_interrupt(move |lua| meter.burn(lua));
        lua.set_memory_limit(MEMORY_BYTES)?;
        Ok(Room { lua, fuel, prelude })
    }

    /// Compiles text and runs its top level, which must return one table.
    ///
    /// # Errors
    /// Syntax errors, errors of the top level, overruns.
    pub(crate) fn run(&self, source: &str) -> mlua::Result<Table> {
        self.fuel.fill(FUEL_LOAD);
        // Text only: Luau would run bytecode found in `source` unchecked.
        let chunk = self.lua.load(source).set_mode(ChunkMode::Text).set_name(format!("={CHUNK}"));
        let result = chunk.set_compiler(compiler()).eval::<Table>();
        match self.fuel.take_blown() {
            Some(blown) => Err(Error::runtime(blown)),
            None => result,
        }
    }
}

/// The compiler for guests: what was replaced or removed must stay so.
fn compiler() -> Compiler {
    let disabled = REPLACED.iter().flat_map(|(library, members)| {
        members.iter().map(move |m| if library.is_empty() { (*m).to_owned() } else { format!("{library}.{m}") })
    });
    Compiler::new().set_optimization_level(1).set_debug_level(1).set_disabled_builtins(disabled.collect::<Vec<_>>())
}

type Unary = fn(f64) -> f64;

/// C's transcendental functions differ in the last bit between machines; those of the `libm` crate do not.
fn install_math(lua: &Lua) -> mlua::Result<()> {
    let math: Table = lua.globals().raw_get("math")?;
    let one: [(&str, Unary); 13] = [
        ("sin", libm::sin),
        ("cos", libm::cos),
        ("tan", libm::tan),
        ("asin", libm::asin),
        ("acos", libm::acos),
        ("atan", libm::atan),
        ("sinh", libm::sinh),
        ("cosh", libm::cosh),
        ("tanh", libm::tanh),
        ("exp", libm::exp),
        ("log10", libm::log10),
        ("ln", libm::log),
        ("log2", libm::log2),
    ];
    for (name, function) in one {
        math.raw_set(name, lua.create_function(move |_, x: f64| Ok(function(x)))?)?;
    }
    math.raw_set("atan2", lua.create_function(|_, (y, x): (f64, f64)| Ok(libm::atan2(y, x)))?)?;
    math.raw_set("pow", lua.create_function(|_, (x, y): (f64, f64)| Ok(libm::pow(x, y)))?)
}

/// Runs `prelude.luau`: it puts guards around library functions and returns the trusted loop's factory.
fn install_prelude(lua: &Lua, fuel: &Rc<Fuel>) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    host.raw_set(
        "glob",
        lua.create_function(|_, (pattern, text): (mlua::LuaString, mlua::LuaString)| {
            Ok(glob(&pattern.to_string_lossy(), &text.to_string_lossy()))
        })?,
    )?;
    host.raw_set(
        "nearest",
        lua.create_function(|_, (wrong, known): (String, Vec<String>)| {
            Ok(nearest(&wrong, known.iter().map(String::as_str)).map(str::to_owned))
        })?,
    )?;
    let meter = Rc::clone(fuel);
    host.raw_set("next_row", lua.create_function(move |_, ()| Ok(meter.next_row()))?)?;
    let meter = Rc::clone(fuel);
    host.raw_set("blown", lua.create_function(move |_, ()| Ok(meter.take_blown()))?)?;
    let prelude = lua.load(include_str!("prelude.luau")).set_mode(ChunkMode::Text).set_name(format!("={PRELUDE}"));
    // With the guests' compiler: otherwise its own call of `math.log10` becomes the C library's.
    prelude.set_compiler(compiler()).into_function()?.call::<Table>(host)
}

/// Compiles generated host code against the VM's own, unguarded functions, with built-in instructions on.
pub(crate) fn trusted(room: &Room, source: &str) -> mlua::Result<Function> {
    let env: Table = room.prelude.raw_get("env")?;
    env.set_safeenv(true);
    let chunk = room.lua.load(source).set_mode(ChunkMode::Text).set_name(format!("={ROWS}")).set_environment(env);
    chunk.set_compiler(Compiler::new().set_optimization_level(2)).into_function()?.call(())
}
