use std::fs;
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::run::LastLine;
use super::*;
use crate::transport::Event;

fn options(argv: &[&str]) -> ExecOptions {
    ExecOptions {
        restart_min: Duration::from_millis(10),
        restart_max: Duration::from_millis(40),
        ..ExecOptions::new(argv.iter().map(|&word| word.to_owned()).collect(), 100)
    }
}

fn open(script: &str) -> ExecTransport {
    ExecTransport::open(options(&["sh", "-c", script]), None).unwrap()
}

/// Reads until that many things were told: lines as `offset:line`, events in brackets.
fn told(t: &mut ExecTransport, count: usize, max_frames: usize) -> String {
    let (mut frames, mut told) = (RawFrames::default(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(20);
    while told.len() < count {
        match t.read(max_frames, 200, &mut frames).unwrap() {
            Progress::Frames => {
                assert!((1..=max_frames).contains(&frames.len()) && (frames.data.len() <= 200 || frames.len() == 1));
                let lines = frames.iter().zip(&frames.offsets);
                told.extend(lines.map(|(line, at)| format!("{at}:{}", String::from_utf8_lossy(line))));
            }
            Progress::Event(Event::Exec(ExecEvent::Oversize { offset, bytes })) => {
                told.push(format!("[{bytes} bytes at {offset}]"));
            }
            Progress::Event(Event::Exec(ExecEvent::Ended { reason, last_error, restart_in })) => {
                told.push(format!("[{reason}, {last_error}, {restart_in:?}]"));
            }
            Progress::Idle => assert!(t.wait(deadline).unwrap(), "{:?} after {told:?}", t.counters().status()),
            other => panic!("{other:?}"),
        }
    }
    told.join("|")
}

#[test]
fn a_command_is_started_again_each_time_later() {
    let script = "echo one; printf 'two\\r\\n\\nrest'; echo first >&2; echo oops >&2; exit 3";
    let options = ExecOptions { restart_max: DEFAULT_RESTART_MAX, ..options(&["sh", "-c", script]) };
    let mut t = ExecTransport::open(options, None).unwrap();
    let run = |at: usize, pause| {
        format!("{at}:one|{}:two|{}:|{}:rest|[exit status: 3, oops, {pause}ms]", at + 4, at + 9, at + 10)
    };
    let want = [run(0, 10), run(14, 20), run(28, 40), run(42, 80)].join("|");
    assert_eq!(told(&mut t, 20, 2), want);
    let status = t.counters().status();
    assert_eq!((status.frames, status.bytes, status.restarts), (16, 4 * 10, 3));
    assert_eq!((status.is_running, status.last_error.as_str()), (false, "oops"));
    assert_eq!(t.position(), ExecPosition { cursor: None, epoch: 3 });
    assert_eq!(status.torn, 0);
    t.pause = DEFAULT_RESTART_MAX * 3 / 4;
    t.start_later(String::new(), String::new());
    assert_eq!(t.pause, DEFAULT_RESTART_MAX);
    t.pending = None;
    assert!(!t.wait(Instant::now()).unwrap());
}

#[test]
fn a_command_that_ran_long_enough_is_soon_started_again() {
    let mut t = open("echo a; sleep 0.05; exit 1");
    assert_eq!(told(&mut t, 4, 9), "0:a|[exit status: 1, , 10ms]|2:a|[exit status: 1, , 10ms]");
}

const COUNTING: &str = r#"n=${1#--after-cursor=}; n=${n:-0}
    for i in 1 2 3; do n=$((n + 1)); echo "{\"__CURSOR\":\"$n\"}"; done
    printf '{"__CURSOR":"99"'"#;

fn counting() -> ExecOptions {
    ExecOptions {
        cursor_field: Some("__CURSOR".into()),
        cursor_argument: Some("--after-cursor={}".into()),
        ..options(&["sh", "-c", COUNTING, "sh"])
    }
}

#[test]
fn a_cursor_makes_the_next_run_go_on_where_the_last_was_left() {
    let mut t = ExecTransport::open(counting(), None).unwrap();
    let line = |n: usize, at| format!("{at}:{{\"__CURSOR\":\"{n}\"}}");
    assert_eq!(told(&mut t, 2, 1), [line(1, 0), line(2, 17)].join("|"));
    let position = t.position();
    assert_eq!(position, ExecPosition { cursor: Some("2".into()), epoch: 0 });
    assert_eq!(serde_json::to_string(&position).unwrap(), r#"{"cursor":"2","epoch":0}"#);
    // A torn line is not handed out: the next run brings it whole.
    let end = "[exit status: 0, , 10ms]";
    assert_eq!(told(&mut t, 3, 1), [line(3, 34), end.into(), line(4, 67)].join("|"));
    assert_eq!((t.counters().status().torn, t.position().epoch), (1, 0));
    drop(t);
    let mut t = ExecTransport::open(counting(), Some(&position)).unwrap();
    assert_eq!(told(&mut t, 2, 1), [line(3, 0), line(4, 17)].join("|"));
    assert_eq!(t.position().epoch, 0);
    // Without a cursor to go on from, it begins anew.
    let position = ExecPosition { cursor: None, epoch: 4 };
    let mut t = ExecTransport::open(counting(), Some(&position)).unwrap();
    assert_eq!(told(&mut t, 1, 1), line(1, 0));
    assert_eq!(t.position(), ExecPosition { cursor: Some("1".into()), epoch: 5 });
}

#[test]
fn nothing_but_a_cursor_becomes_an_argument() {
    let long = format!(r#"{{"c":"{}"}}"#, "x".repeat(MAX_CURSOR_BYTES + 1));
    for (line, cursor) in [
        (r#"{"c":"s=1;i=2"}"#, Some("s=1;i=2")),
        (r#"{"c":17}"#, Some("17")),
        (r#"{"c":""}"#, None),
        (r#"{"c":"a\u0000b"}"#, None),
        (r#"{"c":"a\nb"}"#, None),
        (r#"{"c":["a"]}"#, None),
        (r#"{"d":"a"}"#, None),
        (r#""c""#, None),
        ("{", None),
        (&long, None),
    ] {
        assert_eq!(cursor_of(line.as_bytes(), "c").as_deref(), cursor, "{line}");
    }
}

#[test]
fn all_lines_come_before_the_end_is_told() {
    for _ in 0..20 {
        let mut t = ExecTransport::open(options(&["seq", "1", "50000"]), None).unwrap();
        let (mut frames, mut next) = (RawFrames::default(), 1);
        loop {
            match t.read(1_000, 1 << 20, &mut frames).unwrap() {
                Progress::Frames => {
                    for frame in frames.iter() {
                        assert_eq!(frame, next.to_string().as_bytes());
                        next += 1;
                    }
                }
                Progress::Idle => assert!(t.wait(Instant::now() + Duration::from_secs(20)).unwrap()),
                Progress::Event(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(next, 50_001);
    }
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_told() {
    let mut t = open("echo a; head -c 300000 /dev/zero | tr '\\0' x; echo; echo b; head -c 101 /dev/zero");
    assert_eq!(told(&mut t, 5, 9), "0:a|[300000 bytes at 2]|300003:b|[101 bytes at 300005]|[exit status: 0, , 10ms]");
    assert_eq!(t.counters().status().oversize, 2);
}

#[test]
fn a_flood_of_errors_holds_nothing_up() {
    let mut t = open(
        "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); echo \"error $i\" >&2; done; echo; echo done; exec sleep 99",
    );
    assert_eq!(told(&mut t, 2, 9), "0:|1:done");
    assert_eq!(t.counters().status().last_error, "error 20000");
}

#[test]
fn the_last_error_is_kept_in_part() {
    for (pieces, want) in [
        (vec!["a\nb"], "b"),
        (vec!["a\n", "b\n\n \n"], "b"),
        (vec!["a", "b\n"], "ab"),
        (vec!["a\nb", "c\n"], "bc"),
        (vec!["\n"], ""),
        (vec![&"x".repeat(600)], &"x".repeat(MAX_ERROR_BYTES)),
    ] {
        let mut last = LastLine::default();
        for piece in &pieces {
            last.add(piece.as_bytes());
        }
        assert_eq!(last.text(), want, "{pieces:?}");
    }
}

/// Waits for the end of a process that is nobody's child here.
fn ends(pid: &str) -> bool {
    match pidfd_open(Pid::from_raw(pid.parse().unwrap()).unwrap(), PidfdFlags::empty()) {
        Ok(exit) => {
            !wait_ready([exit.as_fd()].into_iter(), Instant::now() + Duration::from_secs(20)).unwrap().is_empty()
        }
        Err(e) => e == Errno::SRCH,
    }
}

fn is_alive(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    let exit = pidfd_open(pid, PidfdFlags::empty());
    exit.is_ok_and(|exit| wait_ready([exit.as_fd()].into_iter(), Instant::now()).unwrap().is_empty())
}

#[test]
fn the_whole_group_ends_with_the_transport() {
    // Neither listens to a friendly word.
    let mut t = open("trap '' TERM; sleep 1000 & echo $$ $!; wait");
    let pids = told(&mut t, 1, 9);
    let pids: Vec<_> = pids[2..].split(' ').collect();
    assert!(pids.iter().all(|pid| is_alive(pid)));
    drop(t);
    assert!(pids.iter().all(|pid| ends(pid)));
    // What a command left behind ends with its run.
    let mut t = open("sleep 1000 >/dev/null 2>&1 & echo $!");
    let said = told(&mut t, 2, 9);
    let (pid, end) = said[2..].split_once('|').unwrap();
    assert_eq!(end, "[exit status: 0, , 10ms]");
    assert!(ends(pid));
}

#[test]
fn a_command_that_closed_its_output_is_ended() {
    let mut t = open("echo a; exec >/dev/null; exec sleep 1000");
    assert_eq!(told(&mut t, 2, 9), "0:a|[signal: 9 (SIGKILL), , 10ms]");
}

#[test]
fn a_command_ends_at_its_next_line_when_the_host_was_killed() {
    if std::env::var_os("HB_TEST_ALONE").is_some() {
        let mut t = open("echo $$; while :; do echo more; done");
        println!("pid={}", &told(&mut t, 1, 1)[2..]);
        std::process::abort();
    }
    let name = format!("{}::a_command_ends_at_its_next_line_when_the_host_was_killed", module_path!());
    let mut test = Command::new(std::env::current_exe().unwrap());
    let test = test.args(["--exact", "--nocapture", name.split_once("::").unwrap().1]).env("HB_TEST_ALONE", "1");
    let said = String::from_utf8(test.output().unwrap().stdout).unwrap();
    let pid = said.split_once("pid=").unwrap().1.lines().next().unwrap();
    assert!(ends(pid), "{said}");
}

#[test]
fn a_command_gets_its_arguments_and_nothing_else() {
    let mut t = ExecTransport::open(options(&["echo", "$(id); ls *"]), None).unwrap();
    assert_eq!(told(&mut t, 1, 9), "0:$(id); ls *");
    let mut t = ExecTransport::open(options(&["env"]), None).unwrap();
    let mut said = RawFrames::default();
    while t.read(9, 1_000, &mut said).unwrap() != Progress::Frames {
        assert!(t.wait(Instant::now() + Duration::from_secs(20)).unwrap());
    }
    let names: Vec<_> =
        said.iter().map(|line| String::from_utf8_lossy(line.split(|&b| b == b'=').next().unwrap())).collect();
    assert_eq!(names, ["LC_ALL", "PATH"]);
    assert!(said.origins.iter().all(|origin| **origin == *"env"));
    let mut t = open("pwd; cat; echo end");
    assert_eq!(told(&mut t, 2, 9), "0:/|2:end");
}

#[test]
fn what_cannot_be_run_is_told_with_the_way_out() {
    let refused = |options: ExecOptions| ExecTransport::open(options, None).unwrap_err();
    assert!(matches!(refused(options(&[])), ExecError::NoCommand));
    assert!(matches!(refused(options(&[""])), ExecError::NoCommand));
    assert!(matches!(refused(options(&["bin/x"])), ExecError::Relative(_)));
    let e = refused(options(&["no-such-program"]));
    assert!(matches!(e, ExecError::NotFound(_)) && e.help().contains("install it"), "{e}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), "").unwrap();
    assert!(matches!(refused(options(&[dir.path().join("x").to_str().unwrap()])), ExecError::Denied(_)));
    assert!(matches!(refused(ExecOptions { cursor_argument: None, ..counting() }), ExecError::CursorHalf));
    for argument in ["{}", "--after", "{}{}", "--a={}{}"] {
        let e = refused(ExecOptions { cursor_argument: Some(argument.into()), ..counting() });
        assert!(matches!(e, ExecError::CursorArgument(_)), "{argument}: {e}");
    }
    // One that goes missing is waited for.
    let program = dir.path().join("echo");
    std::os::unix::fs::symlink("/bin/echo", &program).unwrap();
    let path = program.to_str().unwrap();
    let mut t = ExecTransport::open(options(&[path, "a"]), None).unwrap();
    assert_eq!(told(&mut t, 2, 9), "0:a|[exit status: 0, , 10ms]");
    fs::remove_file(&program).unwrap();
    assert_eq!(told(&mut t, 1, 9), format!("[the command `{path}` was not found, , 20ms]"));
    std::os::unix::fs::symlink("/bin/echo", &program).unwrap();
    assert_eq!(told(&mut t, 1, 9), "2:a");
    assert_eq!(t.counters().status().restarts, 2);
}
