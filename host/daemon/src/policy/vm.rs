//! One loaded policy in its own VM: packs a question's rows into one buffer, crosses into the VM once, and unpacks
//! the verdicts.

use std::fmt::Write as _;

use hb_engine::decision::{Decision, Mode, Severity, Status};
use hb_engine::judge::{Ask, BASELINE_FIELDS, Param, Row, RuleUse, Verdict, WINDOW_FIELDS};
use hb_log::hash::Hash;
use mlua::{Buffer, Error, Function, Lua, LuaString, Table};

use super::lex::{Pos, Tokens};
use super::sandbox::{CHUNK, Room, trusted};
use super::schema::{Declared, Functions, PolicyKind, Reading};
use super::{EXTENSION, PolicyProblem};

/// Longest policy file, bytes: Luau's compiler cannot be interrupted and takes about 0.1 ms per KiB.
pub(crate) const MAX_SOURCE_BYTES: usize = 256 * 1024;

/// Rows of one crossing: their buffers take about 1 MiB of the VM's memory.
const ROWS_PER_CALL: usize = 2_048;

const COLUMN_BYTES: usize = size_of::<f64>();

/// Columns before the window's: presence, window complete, baseline (0 none, 1 with gaps, 2 complete), lengths of
/// metric, unit and the other name.
const HEAD_COLUMNS: usize = 6;

/// Columns of an answer before the state's: status, value, limit, length of the reason.
const ANSWER_COLUMNS: usize = 4;

const NS_PER_SEC: f64 = 1e9;

/// A loaded policy.
pub(crate) struct PolicyVm {
    pub(crate) file: String,
    pub(crate) source: Hash,
    pub(crate) text: String,
    pub(crate) declared: Declared,
    room: Room,
    /// Judges, or names a severity.
    main: Guarded,
    /// Judges parameters, where the policy does.
    check: Option<Guarded>,
    /// The name errors carry: the id as a path. Reasons go into decisions, which must not depend on where a policy
    /// lies, so that they can be reproduced elsewhere.
    name: String,
}

/// A policy's function behind the trusted code that calls it.
struct Guarded {
    function: Function,
    /// The trusted code around `function`.
    run: Function,
    /// `name:line: ` of `function`.
    place: String,
}

/// What a policy says of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParamsCheck {
    /// It has no objection.
    Fit,
    /// Its sentence.
    Refused(String),
    /// Its `check` did not end as it should, with `file:line: `.
    Broken(String),
}

impl PolicyVm {
    /// Compiles and reads one policy.
    ///
    /// # Errors
    /// Everything that is wrong with the file's size, encoding, syntax and table.
    pub(crate) fn load(file: &str, source: &str) -> Result<PolicyVm, Vec<PolicyProblem>> {
        let (room, table) = open(file, source)?;
        let tokens = Tokens::of(source);
        let mut reading = Reading::new(file, &tokens);
        let Some((declared, Functions { main, check })) = reading.policy(&table) else { return Err(reading.problems) };
        let names = quoted(declared.params.keys().map(String::as_str));
        let text = match declared.kind {
            PolicyKind::Rule => rows_source(&declared, &names),
            PolicyKind::Severity => include_str!("severity.luau").replace("@PARAM_NAMES@", &names),
        };
        let name = format!("{}{EXTENSION}", declared.id.replace('.', "/"));
        let guard = |function: Function, text: &str| {
            let run = trusted(&room, text).map_err(|e| vec![problem_of(file, &e)])?;
            let place = format!("{name}:{}: ", function.info().line_defined.unwrap_or(1));
            Ok::<_, Vec<PolicyProblem>>(Guarded { function, run, place })
        };
        let main = guard(main, &text)?;
        let text = include_str!("check.luau").replace("@PARAM_NAMES@", &names);
        let check = check.map(|function| guard(function, &text)).transpose()?;
        Ok(PolicyVm {
            file: file.to_owned(),
            source: Hash::of(source.as_bytes()),
            declared,
            room,
            main,
            check,
            name,
            text: source.to_owned(),
        })
    }

    /// The rule as a check uses it, without overrides.
    pub(crate) fn rule_use(&self) -> RuleUse {
        RuleUse {
            rule: self.declared.id.clone(),
            version: self.declared.version.clone(),
            source: self.source,
            applies_to: self.declared.applies_to.clone(),
            params: self.declared.params.iter().map(|(name, decl)| (name.clone(), decl.default.clone())).collect(),
            state: self.declared.state.clone(),
        }
    }

    /// What the policy says of the parameters it is to be used with.
    pub(crate) fn check(&self, using: &RuleUse) -> ParamsCheck {
        let Some(check) = &self.check else { return ParamsCheck::Fit };
        self.room.fuel.fill_rows(1);
        // The texts may have been cut within a character.
        type Answer = (Option<LuaString>, Option<LuaString>);
        let params = params(&self.room.lua, using);
        let call = |params| check.run.call::<Answer>((&check.function, check.place.as_str(), params));
        match params.and_then(call) {
            Ok((None, None)) => ParamsCheck::Fit,
            Ok((Some(sentence), _)) => ParamsCheck::Refused(sentence.to_string_lossy()),
            Ok((None, Some(fault))) => {
                let cause = self.named(&fault.to_string_lossy());
                // Running out of memory has no line.
                let placed = cause.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with(':'));
                ParamsCheck::Broken(if placed { cause } else { format!("{}{cause}", check.place) })
            }
            Err(e) => ParamsCheck::Broken(format!("{}{}", check.place, message_of(&e))),
        }
    }

    /// One verdict per row of `ask`.
    pub(crate) fn judge(&self, ask: &Ask<'_>) -> Vec<Verdict> {
        let states = self.declared.state.len();
        if self.declared.kind != PolicyKind::Rule || ask.rows.iter().any(|r| r.state.len() != states) {
            let cause = format!("{}the check was built for another version of this policy", self.main.place);
            return ask.rows.iter().map(|row| fault(row, &cause)).collect();
        }
        self.room.fuel.fill_rows(ask.rows.len());
        let mut verdicts = Vec::with_capacity(ask.rows.len());
        for rows in ask.rows.chunks(ROWS_PER_CALL) {
            if self.cross(ask, rows, &mut verdicts).is_ok() {
                continue;
            }
            // Memory ran out, or the overrun hit the loop itself: go row by row, so that only the guilty ones fail.
            for row in rows.chunks(1) {
                if let Err(e) = self.cross(ask, row, &mut verdicts) {
                    verdicts.push(fault(&row[0], &format!("{}{}", self.main.place, message_of(&e))));
                }
            }
        }
        verdicts
    }

    /// Severity of a decision, or what is wrong with the policy.
    pub(crate) fn severity(&self, using: &RuleUse, decision: &Decision) -> Result<Option<Severity>, String> {
        if self.declared.kind != PolicyKind::Severity {
            return Err(format!("{}policy `{}` is a rule, not a severity policy", self.main.place, self.declared.id));
        }
        self.room.fuel.fill_rows(1);
        let answer =
            self.ask_severity(using, decision).map_err(|e| format!("{}{}", self.main.place, message_of(&e)))?;
        match answer {
            (None, Some(fault)) => Err(self.named(&fault)),
            (answer, _) => Ok(match answer.as_deref() {
                Some("WARN") => Some(Severity::Warn),
                Some("FAIL") => Some(Severity::Fail),
                Some("CRITICAL") => Some(Severity::Critical),
                _ => None,
            }),
        }
    }

    /// Sends `rows` through the trusted loop and appends their verdicts; appends nothing on an error.
    fn cross(&self, ask: &Ask<'_>, rows: &[Row<'_>], verdicts: &mut Vec<Verdict>) -> mlua::Result<()> {
        let states = self.declared.state.len();
        let columns = HEAD_COLUMNS + WINDOW_FIELDS.len() + BASELINE_FIELDS.len() + states;
        let mut input = Vec::with_capacity(rows.len() * columns * COLUMN_BYTES);
        let mut text = Vec::with_capacity(rows.len() * 32);
        for row in rows {
            pack(row, &mut input, &mut text);
        }
        let lua = &self.room.lua;
        let ctx = context(lua, ask.rule, ask.mode, ask.asset, ask.check)?;
        ctx.raw_set("now_sec", ask.now_ns as f64 / NS_PER_SEC)?;
        ctx.raw_set("window_sec", (ask.end_ns - ask.start_ns) as f64 / NS_PER_SEC)?;
        let (input, text) = (lua.create_buffer(input)?, lua.create_buffer(text)?);
        let call = (&self.main.function, self.main.place.as_str(), rows.len(), input, text, ctx);
        let (output, reasons): (Buffer, LuaString) = self.main.run.call(call)?;
        let (output, reasons) = (output.to_vec(), reasons.as_bytes());
        let mut letter = 0;
        for (row, answer) in rows.iter().zip(output.chunks_exact((ANSWER_COLUMNS + states) * COLUMN_BYTES)) {
            let column = |at: usize| {
                let bytes = &answer[at * COLUMN_BYTES..][..COLUMN_BYTES];
                f64::from_le_bytes(bytes.try_into().unwrap_or_default())
            };
            let length = column(3) as usize;
            let reason = String::from_utf8_lossy(&reasons[letter..letter + length]);
            letter += length;
            let status = match column(0) as u8 {
                0 => Status::Pass,
                1 => Status::NoData,
                2 => Status::Drift,
                4 => Status::Fail,
                _ => Status::Error,
            };
            let (reason, state) = if status == Status::Error {
                (self.named(&reason), row.state.to_vec())
            } else {
                (reason.into_owned(), (0..states).map(|i| column(ANSWER_COLUMNS + i)).collect())
            };
            verdicts.push(Verdict { status, value: column(1), limit: column(2), reason, state });
        }
        Ok(())
    }

    /// An error's text with the policy's name for the chunk's.
    fn named(&self, text: &str) -> String {
        match text.strip_prefix(CHUNK) {
            Some(rest) if rest.starts_with(':') => format!("{}{rest}", self.name),
            _ => text.to_owned(),
        }
    }

    fn ask_severity(&self, using: &RuleUse, decision: &Decision) -> mlua::Result<(Option<String>, Option<String>)> {
        let lua = &self.room.lua;
        let ctx = context(lua, using, decision.mode, &decision.asset, &decision.check)?;
        let findings = lua.create_table_with_capacity(decision.findings.len(), 0)?;
        for finding in &decision.findings {
            let table = lua.create_table()?;
            table.raw_set("metric", finding.series.metric.as_str())?;
            table.raw_set("unit", finding.series.unit.as_str())?;
            table.raw_set("rule", finding.rule.as_str())?;
            table.raw_set("status", finding.status.as_str())?;
            table.raw_set("value", finding.value)?;
            table.raw_set("limit", finding.limit)?;
            table.raw_set("contribution", finding.contribution)?;
            table.raw_set("observed", finding.observed)?;
            table.raw_set("expected", finding.expected)?;
            table.raw_set("reason", finding.reason.as_str())?;
            findings.raw_push(table)?;
        }
        let table = lua.create_table()?;
        table.raw_set("status", decision.status.as_str())?;
        table.raw_set("previous", decision.previous.as_str())?;
        table.raw_set("check", decision.check.as_str())?;
        table.raw_set("asset", decision.asset.as_str())?;
        table.raw_set("mode", decision.mode.as_str())?;
        table.raw_set("findings", findings)?;
        self.main.run.call((&self.main.function, self.main.place.as_str(), table, ctx))
    }
}

/// Checks size and syntax and runs the top level of any policy or test file.
pub(crate) fn open(file: &str, source: &str) -> Result<(Room, Table), Vec<PolicyProblem>> {
    let one = |message: String, help: &str| {
        let help = (!help.is_empty()).then(|| help.to_owned());
        vec![PolicyProblem { file: file.to_owned(), line: 1, col: 1, message, help }]
    };
    if source.len() > MAX_SOURCE_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_SOURCE_BYTES} are allowed", source.len());
        return Err(one(message, "split it into several policies"));
    }
    let tokens = Tokens::of(source);
    let powers: Vec<PolicyProblem> = tokens
        .powers()
        .map(|Pos { line, col }| PolicyProblem {
            file: file.to_owned(),
            line,
            col,
            message: "the operator `^` gives other digits on other machines".to_owned(),
            help: Some("write `x * x`, or `math.pow(x, y)`".to_owned()),
        })
        .collect();
    if !powers.is_empty() {
        return Err(powers);
    }
    let room = Room::new().map_err(|e| one(message_of(&e), ""))?;
    let table = room.run(source).map_err(|e| vec![problem_of(file, &e)])?;
    Ok((room, table))
}

/// The first line of an error, without mlua's frame around it.
pub(crate) fn message_of(error: &Error) -> String {
    let text = match error {
        Error::SyntaxError { message, .. } | Error::RuntimeError(message) | Error::MemoryError(message) => {
            message.clone()
        }
        Error::CallbackError { cause, .. } => message_of(cause),
        Error::FromLuaConversionError { from, to, .. } if to.as_str() == "table" => {
            format!("the file returns a {from}; expected one table")
        }
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

/// An error as a problem, with the `file:line:` of its text as the place.
pub(crate) fn problem_of(file: &str, error: &Error) -> PolicyProblem {
    let text = message_of(error);
    let rest = text.strip_prefix(CHUNK).and_then(|t| t.strip_prefix(':'));
    let placed = rest.and_then(|t| {
        let (line, message) = t.split_once(':')?;
        Some((line.parse().ok()?, message.trim().to_owned()))
    });
    let (line, message) = placed.unwrap_or((1, text));
    PolicyProblem { file: file.to_owned(), line, col: 1, message, help: None }
}

fn fault(row: &Row<'_>, cause: &str) -> Verdict {
    Verdict {
        status: Status::Error,
        value: f64::NAN,
        limit: f64::NAN,
        reason: cause.to_owned(),
        state: row.state.to_vec(),
    }
}

fn pack(row: &Row<'_>, input: &mut Vec<u8>, text: &mut Vec<u8>) {
    let gaps = |values: &[f64]| values.iter().filter(|v| v.is_nan()).count();
    let missing = gaps(&row.baseline);
    let baseline = match missing {
        0 => 2.0,
        n if n == BASELINE_FIELDS.len() => 0.0,
        _ => 1.0,
    };
    let renamed = row.renamed.map_or("", |series| series.metric.as_str());
    let head = [
        f64::from(row.presence.code()),
        f64::from(u8::from(gaps(&row.window) == 0)),
        baseline,
        row.series.metric.len() as f64,
        row.series.unit.len() as f64,
        renamed.len() as f64,
    ];
    let columns = head.iter().chain(&row.window).chain(&row.baseline).chain(row.state);
    input.extend(columns.flat_map(|value| value.to_le_bytes()));
    for part in [&row.series.metric, &row.series.unit] {
        text.extend_from_slice(part.as_bytes());
    }
    text.extend_from_slice(renamed.as_bytes());
}

fn params(lua: &Lua, using: &RuleUse) -> mlua::Result<Table> {
    let params = lua.create_table_with_capacity(0, using.params.len())?;
    for (name, value) in &using.params {
        match value {
            Param::Bool(on) => params.raw_set(name.as_str(), *on)?,
            Param::Number(number) => params.raw_set(name.as_str(), *number)?,
            Param::Text(text) => params.raw_set(name.as_str(), text.as_str())?,
        }
    }
    Ok(params)
}

fn context(lua: &Lua, using: &RuleUse, mode: Mode, asset: &str, check: &str) -> mlua::Result<Table> {
    let ctx = lua.create_table_with_capacity(0, 7)?;
    ctx.raw_set("params", params(lua, using)?)?;
    ctx.raw_set("mode", mode.as_str())?;
    ctx.raw_set("asset", asset)?;
    ctx.raw_set("check", check)?;
    Ok(ctx)
}

/// The trusted loop's text for one rule: a line per column, so that built-in instructions read the buffer.
fn rows_source(declared: &Declared, params: &str) -> String {
    let read = |fields: &[&str], first: usize| {
        let mut lines = String::new();
        for (i, field) in fields.iter().enumerate() {
            let _ = writeln!(lines, "{field} = buffer.readf64(input, at + {}),", (first + i) * COLUMN_BYTES);
        }
        lines
    };
    let first_baseline = HEAD_COLUMNS + WINDOW_FIELDS.len();
    let first_state = first_baseline + BASELINE_FIELDS.len();
    let (mut state_read, mut state_write) = (String::new(), String::new());
    for (i, (name, _)) in declared.state.iter().enumerate() {
        let (from, to) = ((first_state + i) * COLUMN_BYTES, (ANSWER_COLUMNS + i) * COLUMN_BYTES);
        let _ = writeln!(state_read, "rawset(state, \"{name}\", buffer.readf64(input, at + {from}))");
        let _ = writeln!(
            state_write,
            "s = rawget(state, \"{name}\")\nif type(s) == \"number\" and s - s == 0 then buffer.writef64(output, out + \
             {to}, s) else fault = fault or `{{place}}state \\`{name}\\` became {{if type(s) == \"number\" then \
             tostring(s) else type(s)}}; it must stay a finite number` end"
        );
    }
    include_str!("rows.luau")
        .replace("@WINDOW_NAMES@", &quoted(WINDOW_FIELDS))
        .replace("@BASELINE_NAMES@", &quoted(BASELINE_FIELDS))
        .replace("@PARAM_NAMES@", params)
        .replace("@STATE_NAMES@", &quoted(declared.state.iter().map(|(name, _)| name.as_str())))
        .replace("@WINDOW@", &read(&WINDOW_FIELDS, HEAD_COLUMNS))
        .replace("@BASELINE@", &read(&BASELINE_FIELDS, first_baseline))
        .replace("@STATE_READ@", &state_read)
        .replace("@STATE_WRITE@", &state_write)
        .replace("@IN_BYTES@", &((first_state + declared.state.len()) * COLUMN_BYTES).to_string())
        .replace("@OUT_BYTES@", &((ANSWER_COLUMNS + declared.state.len()) * COLUMN_BYTES).to_string())
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
