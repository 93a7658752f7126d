//! Drives a headless Chromium by WebDriver, and hears what a page does: its errors and what it asks the network for.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::hb::target;

/// Longest wait for one answer: a page of a few MB is judged in seconds, on a busy machine in many.
const PATIENCE: Duration = Duration::from_mins(5);

/// Largest answer, bytes: a screenshot of a long page.
const ANSWER_BYTES: u64 = 256 << 20;

/// What chromedriver says when it listens, before its port.
const STARTED: &str = "started successfully on port ";

/// Keeps Chromium to itself: no window, no first steps, nothing it would ask its maker.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// A browser with one page; it ends with the test.
pub(crate) struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
    /// chromedriver ends with the reader of what it says.
    _said: BufReader<ChildStdout>,
    _profile: TempDir,
}

/// What a page did since it was asked last.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Errors of scripts, of the policy of the page, and of what could not be loaded.
    pub(crate) errors: Vec<String>,
    /// What was asked for, by URL.
    pub(crate) requests: Vec<String>,
}

impl Browser {
    /// Starts a browser with a profile of its own.
    pub(crate) fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("chromedriver: {e}; run `cargo xtask setup`"));
        let mut said = BufReader::new(driver.stdout.take().unwrap());
        let port = port(&mut said);
        let config = Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).proxy(None);
        let mut args: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser = Browser {
            driver,
            agent: config.build().into(),
            session: format!("http://127.0.0.1:{port}/session"),
            _said: said,
            _profile: profile,
        };
        let options = json!({ "args": args });
        let wanted = json!({
            "browserName": "chrome",
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let made = browser.post("", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("{}/{}", browser.session, made["sessionId"].as_str().unwrap());
        browser
    }

    /// Opens a file and says what came of it.
    pub(crate) fn open(&self, file: &Path) -> Heard {
        self.heard();
        self.post("/url", &json!({ "url": url(file) }));
        self.heard()
    }

    /// What happened since the last time.
    pub(crate) fn heard(&self) -> Heard {
        let log = |kind: &str| self.post("/se/log", &json!({ "type": kind })).as_array().unwrap().clone();
        let mut heard = Heard::default();
        for entry in log("performance") {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let event = &event["message"];
            match event["method"].as_str().unwrap() {
                "Network.requestWillBeSent" => {
                    heard.requests.push(event["params"]["request"]["url"].as_str().unwrap().to_owned());
                }
                "Network.webSocketCreated" => heard.requests.push(event["params"]["url"].to_string()),
                _ => {}
            }
        }
        let texts = log("browser").into_iter().filter(|e| e["level"] != "INFO" && e["level"] != "DEBUG");
        heard.errors = texts.map(|e| e["message"].as_str().unwrap().to_owned()).collect();
        heard
    }

    /// Runs the body of a function in the page and returns what it returns, a promise's value included.
    pub(crate) fn script(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// How the page is shown: `light` or `dark`, on a screen of this width, or on paper.
    pub(crate) fn show(&self, scheme: &str, width: u32, media: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "media": media, "features": features }));
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Writes a picture of the whole page.
    pub(crate) fn picture(&self, file: &Path) {
        let metrics = self.devtools("Page.getLayoutMetrics", &json!({}));
        let size = &metrics["cssContentSize"];
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let shot = self.devtools("Page.captureScreenshot", &asked);
        std::fs::write(file, BASE64.decode(shot["data"].as_str().unwrap().as_bytes()).unwrap()).unwrap();
    }

    /// Writes the page as it would be printed.
    pub(crate) fn print(&self, file: &Path) {
        let printed = self.post("/print", &json!({ "background": false }));
        std::fs::write(file, BASE64.decode(printed.as_str().unwrap().as_bytes()).unwrap()).unwrap();
    }

    /// What axe-core has against the page: rule, and the elements it found.
    pub(crate) fn axe(&self) -> Vec<String> {
        let file = target().join("browser/axe.min.js");
        let axe = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask setup`, which fetches it", file.display()));
        self.script(&axe);
        let found = self.script(
            "return axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations.map(\
             v => v.id + ': ' + v.help + ': ' + v.nodes.slice(0, 5).map(n => n.html + ' ' + n.failureSummary)))",
        );
        found.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    }

    fn devtools(&self, command: &str, params: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        let mut answer = request.send(body.to_string()).unwrap();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(answer.status().is_success(), "{path}: {}", value["value"]["message"]);
        value["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver goes whatever came of that.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The address of a file.
pub(crate) fn url(file: &Path) -> String {
    format!("file://{}", file.canonicalize().unwrap().display())
}

/// The port that chromedriver says it listens on.
fn port(said: &mut BufReader<ChildStdout>) -> u16 {
    let mut all = String::new();
    while said.read_line(&mut all).unwrap() > 0 {
        if let Some((_, rest)) = all.split_once(STARTED) {
            return rest.trim().trim_end_matches('.').parse().unwrap();
        }
    }
    panic!("chromedriver did not start: {all}");
}
