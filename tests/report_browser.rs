//! A headless Chromium opens real reports: they ask for nothing, break nothing and can be read by everybody.
//!
//! Pictures of them are left in `report/` of the target directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::support::browser::{Browser, url};
use crate::support::hb::{CLEAN_SEC, Hb, Plant, at, target, telemetry};

/// Simulated seconds of the plant.
const SECONDS: u64 = 900;

/// Widths of a desk's and a telephone's screen.
const DESK: u32 = 1_280;
const PHONE: u32 = 390;

/// Names that would be something else than text where text is not made harmless.
const NAUGHTY: &[&str] = &[
    "<script>document.title='gone'</script>",
    "\\\"><img src=x onerror=document.title='gone'>",
    "</title></style></svg><style>*{display:none}</style>",
    "' onfocus='document.title=1' autofocus='",
    "<a href='https://example.invalid/'>here</a>",
    "\\u202egnaw\\u202c <b>bold</b> &lt;i&gt;",
];

#[test]
fn reports_ask_for_nothing_break_nothing_and_can_be_read_by_everybody() {
    let (run, pack) = of_a_plant();
    let browser = Browser::start();
    for (name, page) in [("run", run.page.as_path()), ("pack", pack.as_path()), ("hostile", hostile().page.as_path())] {
        browser.show("light", DESK, "screen");
        let heard = browser.open(page);
        assert!(heard.errors.is_empty(), "{name}: {heard:#?}");
        assert_eq!(heard.requests, [url(page)], "{name}");
        let charts = browser.script("return document.querySelectorAll('svg[role=img]').length").as_u64();
        assert!(charts > Some(1), "{name}: {charts:?} charts");
        for (scheme, width) in [("light", DESK), ("dark", DESK), ("light", PHONE)] {
            browser.show(scheme, width, "screen");
            picture(&browser, &format!("{name}-{scheme}-{width}"));
            let fits = browser.script("return document.documentElement.scrollWidth <= window.innerWidth");
            assert_eq!(fits, true, "{name}: the page is wider than {width}");
            // What is folded is read too.
            browser.script("document.querySelectorAll('details').forEach(d => d.open = true)");
            let found = browser.axe();
            assert!(found.is_empty(), "{name}, {scheme}, {width}: {found:#?}");
            browser.script("document.querySelectorAll('details').forEach(d => d.open = false)");
        }
        browser.show("light", DESK, "print");
        picture(&browser, &format!("{name}-print"));
        browser.print(&out(&format!("{name}.pdf")));
        let heard = browser.heard();
        assert!(heard.errors.is_empty() && heard.requests.is_empty(), "{name}: {heard:#?}");
    }
    // The text of hostile names is there, and is nothing but text.
    let title = browser.script("return document.title");
    assert!(title.as_str().unwrap().starts_with("FAIL "), "{title}");
    let text = browser.script("return document.body.innerText");
    let text = text.as_str().unwrap();
    assert!(text.contains("<script>document.title='gone'</script>") && text.contains("\\u{202e}gnaw"), "{text}");
    let strange = browser.script("return document.querySelectorAll('script, img, b, i, iframe, [onfocus]').length");
    assert_eq!(strange, 0);
}

#[test]
fn the_browser_notices_what_reports_must_not_do() {
    let hb = Hb::new();
    hb.write(
        "bad.html",
        "<!DOCTYPE html><title>bad</title><body style='color:#aaa'>faint<img src='http://127.0.0.1:9/x.png'>
         <script>throw new Error('broken')</script>",
    );
    let browser = Browser::start();
    let heard = browser.open(&hb.path("bad.html"));
    assert!(heard.errors.iter().any(|e| e.contains("broken")), "{heard:#?}");
    assert!(heard.requests.iter().any(|r| r.contains("127.0.0.1:9/x.png")), "{heard:#?}");
    let found = browser.axe().join("\n");
    for rule in ["color-contrast", "html-has-lang", "image-alt"] {
        assert!(found.contains(&format!("{rule}: ")), "{rule}: {found}");
    }
}

/// A report, and the directory it lies in.
struct Analyzed {
    page: PathBuf,
    _hb: Hb,
}

/// The reports of a plant in which something drifts, jumps and falls silent: of the whole run, and of a case's pack.
fn of_a_plant() -> (Analyzed, PathBuf) {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(3, SECONDS));
    hb.done(&["analyze", "artifacts"]);
    let reports = hb.json(&["report", "list"]);
    let pack =
        reports.as_array().unwrap().iter().find(|r| r["kind"] == "case").unwrap()["path"].as_str().unwrap().into();
    (Analyzed { page: hb.path("artifacts/drift_report.html"), _hb: hb }, pack)
}

/// The report of an asset whose metrics have hostile names.
fn hostile() -> Analyzed {
    let hb = Hb::plant(Plant::default(), &naughty_telemetry());
    hb.done(&["analyze", "artifacts"]);
    Analyzed { page: hb.path("artifacts/drift_report.html"), _hb: hb }
}

/// Each metric rises once the clean time is over.
fn naughty_telemetry() -> String {
    let mut text = String::new();
    for second in 0..CLEAN_SEC + 120 {
        let rise = if second < CLEAN_SEC { 0.0 } else { 40.0 };
        let noise = (second % 7) as f64;
        write!(text, "{{\"timestamp\":\"{}\",\"asset\":\"{}\"", at(second), NAUGHTY[1]).unwrap();
        for name in NAUGHTY {
            write!(text, ",\"{name}\":{}", 10.0 + noise + rise).unwrap();
        }
        text.push_str("}\n");
    }
    text
}

fn picture(browser: &Browser, name: &str) {
    browser.picture(&out(&format!("{name}.png")));
}

/// A file in the target directory.
fn out(name: &str) -> PathBuf {
    let dir: &Path = &target().join("report");
    std::fs::create_dir_all(dir).unwrap();
    dir.join(name)
}
