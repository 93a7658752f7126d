//! `hb simulate`: telemetry of a simulated plant, into a file, to a broker or to a syslog receiver.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{Done, Failure, Global, progress, signals};
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, exit};
use crate::plant::{self, Fault, Plant, Report};
use crate::transport::Unsent;
use crate::transport::mqtt::publish::{PublishError, Publisher};
use crate::transport::send::Sender;

/// A Monday, so that the week is as long as it can be.
const START: &str = "2026-03-02";

/// Longest wait for a broker or a receiver that takes nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest wait until a signal is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `hb simulate`.
#[derive(Args)]
pub(crate) struct SimulateArgs {
    /// Write JSON lines into this file; `-`, the default, is standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["broker", "syslog"])]
    output: Option<PathBuf>,
    /// Publish to this broker, as tcp://HOST:PORT, under plant/VENDOR/MACHINE.
    #[arg(long, value_name = "URL", conflicts_with = "syslog")]
    broker: Option<String>,
    /// Send to this syslog receiver, as udp://IP:PORT, tcp://IP:PORT, unix:///PATH or unix-stream:///PATH.
    #[arg(long, value_name = "URL")]
    syslog: Option<String>,
    /// Machines, 1 to 99.
    #[arg(long, value_name = "N", default_value_t = plant::MACHINES, value_parser = machines)]
    machines: usize,
    /// The same seed is the same plant.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Time of the first report. Default: now when it is sent, 2026-03-02 for a file.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Time between two reports of a machine.
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    step: String,
    /// End after this much of the plant's time. Default: never when it is sent, a day for a file.
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<String>,
    /// Seconds of the plant's time in one second; 0 as fast as it goes. Default: 1 when it is sent, 0 for a file.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    speed: Option<f64>,
    /// A fault as KIND:MACHINE:FROM or KIND:MACHINE:FROM:FOR; kinds are drift, spike, stuck, latency, rename, silent.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<String>,
}

/// Makes telemetry until its time is over or somebody asks for the end.
pub(crate) fn simulate(global: &Global, args: &SimulateArgs) -> Done {
    let is_sent = args.broker.is_some() || args.syslog.is_some();
    let start_ns = match &args.start {
        Some(text) => clock::parse(text).map_err(|e| Failure::usage(e, "as --start 2026-03-02T06:00:00Z"))?,
        None if is_sent => clock::now_ns(),
        None => clock::parse(START).map_err(Failure::data)?,
    };
    let span = |text: &str, example: &str| clock::parse_span(text).map_err(|e| Failure::usage(e, example));
    let step_ns = span(&args.step, "as --step 10s")?;
    let for_ns = match &args.span {
        Some(text) => Some(span(text, "as --for 24h")?),
        None => (!is_sent).then_some(24 * 3_600 * hb_engine::NS_PER_SEC),
    };
    let speed = args.speed.unwrap_or(if is_sent { 1.0 } else { 0.0 });
    Pace::check(speed, "as --speed 60, an hour in a minute")?;
    let faults = args.faults.iter().map(|text| text.parse::<Fault>()).collect::<Result<Vec<_>, _>>();
    let wrong = |e: plant::FaultError| Failure::usage(e.to_string(), "as --fault drift:press-03:6h");
    let plant = Plant::new(args.seed, args.machines, start_ns, step_ns, faults.map_err(wrong)?).map_err(wrong)?;
    let mut out = Out::open(args)?;
    let asked = signals::flag().map_err(|e| Failure::io("signal handling".as_ref(), &e))?;
    // Each step that begins before the end.
    let steps = for_ns.map(|whole| whole.unsigned_abs().div_ceil(step_ns.unsigned_abs().max(1)).max(1));
    let bar = progress::steps("simulate", steps);
    let mut pace = Pace { begin: Instant::now(), speed };
    let mut count = 0_u64;
    let mut n = 0;
    'plant: while steps.is_none_or(|steps| n < steps) {
        if !pace.wait(plant.time_ns(n) - start_ns, || asked.name().is_some()) {
            break;
        }
        for report in plant.step(n) {
            if !out.take(&report)? {
                break 'plant;
            }
            count += 1;
        }
        n += 1;
        bar.inc(1);
    }
    out.finish()?;
    bar.finish_and_clear();
    if out.is_stdout() {
        return Ok(exit::OK);
    }
    let to = out.name();
    let done = json!({ "to": to, "reports": count, "steps": n, "seed": args.seed });
    global.print(&done, |_| format!("{to}: {count} reports of {} machines, {n} steps\n", args.machines));
    Ok(exit::OK)
}

/// Slowest and fastest pace, seconds of the plant in one of ours: below, a step takes most of a day; above, nobody waits.
const SPEEDS: RangeInclusive<f64> = 1e-3..=1e9;

/// The plant's time against ours.
pub(super) struct Pace {
    pub(super) begin: Instant,
    /// 0 as fast as it goes.
    pub(super) speed: f64,
}

impl Pace {
    /// Whether there is such a speed.
    pub(super) fn check(speed: f64, example: &str) -> Result<(), Failure> {
        if speed == 0.0 || SPEEDS.contains(&speed) {
            return Ok(());
        }
        let (slowest, fastest) = SPEEDS.into_inner();
        let message =
            format!("--speed {speed} is no speed: 0 is as fast as it goes, others are {slowest} to {fastest}");
        Err(Failure::usage(message, example))
    }

    /// Waits until the plant is so old, ns; false when somebody asks for the end before.
    pub(super) fn wait(&mut self, age_ns: i64, is_asked: impl Fn() -> bool) -> bool {
        let due = match self.speed {
            speed if speed > 0.0 => self.begin + Duration::from_secs_f64(age_ns as f64 / 1e9 / speed),
            _ => self.begin,
        };
        loop {
            if is_asked() {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Where reports go.
enum Out {
    Stdout(BufWriter<std::io::Stdout>),
    File(BufWriter<File>, PathBuf),
    Broker(Publisher, String),
    Syslog(Box<Sender>, String),
}

impl Out {
    fn open(args: &SimulateArgs) -> Result<Out, Failure> {
        if let Some(url) = &args.broker {
            let help = "as --broker tcp://127.0.0.1:1883";
            let place = url.strip_prefix("tcp://").unwrap_or(url);
            let (host, port) = place.rsplit_once(':').unwrap_or((place, "1883"));
            let port = port.parse().map_err(|_| Failure::usage(format!("`{url}` has no port"), help))?;
            if host.is_empty() || host.contains('/') {
                return Err(Failure::usage(format!("`{url}` is no broker"), help));
            }
            let id = format!("hb-simulate-{}", std::process::id());
            return Ok(Out::Broker(Publisher::start(host, port, &id)?, url.clone()));
        }
        if let Some(url) = &args.syslog {
            let sender = Sender::new(std::slice::from_ref(url), "--syslog".to_owned());
            let sender = sender.map_err(|(_, e)| Failure::usage(e.to_string(), e.help()))?;
            return Ok(Out::Syslog(Box::new(sender), url.clone()));
        }
        match args.output.as_deref().filter(|path| *path != Path::new("-")) {
            None => Ok(Out::Stdout(BufWriter::new(std::io::stdout()))),
            Some(path) => {
                let file = File::create(path).map_err(|e| Failure::io(path, &e))?;
                Ok(Out::File(BufWriter::new(file), path.to_owned()))
            }
        }
    }

    /// False when nobody reads any more.
    fn take(&mut self, report: &Report<'_>) -> Result<bool, Failure> {
        match self {
            Out::Stdout(to) => is_read(writeln!(to, "{}", report.line())),
            Out::File(to, path) => {
                let written = writeln!(to, "{}", report.line());
                written.map(|()| true).map_err(|e| Failure::io(path, &e))
            }
            Out::Broker(to, _) => {
                to.publish(&report.topic(), report.payload(), PATIENCE)?;
                Ok(true)
            }
            Out::Syslog(to, url) => {
                let mut text = report.syslog();
                if url.starts_with("tcp:") || url.starts_with("unix-stream:") {
                    // Octet counting of RFC 6587.
                    text = format!("{} {text}", text.len());
                }
                let sent = to.send(url, text.as_bytes(), PATIENCE);
                let sent = sent.map_err(|(Unsent::Refused(why) | Unsent::Unreachable(why))| {
                    let d = Diagnostic::error(Area::Transport, why);
                    Failure::new(exit::IO, d.help("start the receiver first, or see whether it still reads"))
                });
                sent.map(|()| true)
            }
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match self {
            Out::Stdout(to) => is_read(to.flush()).map(drop),
            Out::File(to, path) => to.flush().map_err(|e| Failure::io(path, &e)),
            Out::Broker(to, _) => Ok(to.finish(PATIENCE)?),
            Out::Syslog(..) => Ok(()),
        }
    }

    fn is_stdout(&self) -> bool {
        matches!(self, Out::Stdout(_))
    }

    fn name(&self) -> String {
        match self {
            Out::Stdout(_) => "-".to_owned(),
            Out::File(_, path) => path.display().to_string(),
            Out::Broker(_, url) | Out::Syslog(_, url) => url.clone(),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(e: PublishError) -> Self {
        let help = "start the broker first, or name another with --broker tcp://HOST:PORT";
        Failure::new(exit::IO, Diagnostic::error(Area::Transport, e.to_string()).help(help))
    }
}

/// A reader like `head` that has seen enough is no error.
fn is_read(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::io("stdout".as_ref(), &e)),
    }
}

fn machines(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=plant::MACHINES_MAX).contains(n));
    number.ok_or_else(|| format!("1 to {} machines", plant::MACHINES_MAX))
}
