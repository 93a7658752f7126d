//! The imports of a plugin, answered from memory.

use crate::wit::http::{Request, Response};
use crate::wit::types::{Attribute, Failure, SeriesDef, SeriesKind};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
struct Host {
    series: Vec<SeriesDef>,
    codes: BTreeMap<String, f64>,
    log: Vec<(u8, String)>,
    output: Vec<u8>,
    output_error: Option<String>,
    define_calls: usize,
    max_series: Option<usize>,
    granted: Option<Vec<String>>,
    answers: VecDeque<Result<Response, Failure>>,
    requests: Vec<Request>,
    sent: Vec<(String, Vec<u8>)>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// A fresh host for this thread.
pub fn reset() {
    HOST.with(|h| *h.borrow_mut() = Host::default());
}

/// Refuses more series than this.
pub fn set_max_series(max: usize) {
    HOST.with(|h| h.borrow_mut().max_series = Some(max));
}

/// Lets the next writes to the output fail, or succeed again.
pub fn set_output_error(error: Option<&str>) {
    HOST.with(|h| h.borrow_mut().output_error = error.map(str::to_owned));
}

/// Grants URLs, addresses and names of secrets, word by word; without a call everything is granted.
pub fn set_granted(granted: &[&str]) {
    HOST.with(|h| h.borrow_mut().granted = Some(granted.iter().map(|&g| g.to_owned()).collect()));
}

/// What the next requests, or bytes for a socket, are answered with, in this order; then everything is answered well.
pub fn set_answers(answers: impl IntoIterator<Item = Result<Response, Failure>>) {
    HOST.with(|h| h.borrow_mut().answers = answers.into_iter().collect());
}

/// An answer for [`set_answers`].
pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let header = |&(name, value): &(&str, &str)| crate::http::Header { name: name.to_owned(), value: value.to_owned() };
    Response { status, headers: headers.iter().map(header).collect(), body: body.into() }
}

/// Takes the requests that the plugin sent.
pub fn take_requests() -> Vec<Request> {
    HOST.with(|h| std::mem::take(&mut h.borrow_mut().requests))
}

/// Takes what the plugin sent to sockets: addresses and bytes.
pub fn take_sent() -> Vec<(String, Vec<u8>)> {
    HOST.with(|h| std::mem::take(&mut h.borrow_mut().sent))
}

/// How often the plugin asked for a series id.
pub fn define_calls() -> usize {
    HOST.with(|h| h.borrow().define_calls)
}

/// What the plugin logged, with levels.
pub fn logged() -> Vec<(u8, String)> {
    HOST.with(|h| h.borrow().log.clone())
}

/// Takes what the plugin wrote to its output.
pub fn take_output() -> Vec<u8> {
    HOST.with(|h| std::mem::take(&mut h.borrow_mut().output))
}

/// The definition behind an id.
///
/// # Panics
/// If the plugin made the id up.
pub fn series(id: u32) -> SeriesDef {
    HOST.with(|h| h.borrow().series.get(id as usize).cloned()).unwrap_or_else(|| panic!("series id {id} is made up"))
}

pub(crate) fn log(level: u8, text: &str) {
    HOST.with(|h| h.borrow_mut().log.push((level, text.to_owned())));
}

pub(crate) fn write_output(bytes: &[u8]) -> Result<(), String> {
    HOST.with(|h| {
        let mut h = h.borrow_mut();
        if let Some(error) = &h.output_error {
            return Err(error.clone());
        }
        h.output.extend_from_slice(bytes);
        Ok(())
    })
}

pub(crate) fn http_granted(_method: &str, url: &str, sign_with: Option<&str>) -> Result<(), String> {
    HOST.with(|h| [Some(url), sign_with].into_iter().flatten().try_for_each(|word| h.borrow().check(word)))
}

pub(crate) fn http_send(request: &Request) -> Result<Response, Failure> {
    http_granted(&request.method, &request.url, request.sign_with.as_deref()).map_err(Failure::Refused)?;
    HOST.with(|h| {
        let mut h = h.borrow_mut();
        h.requests.push(request.clone());
        h.answers.pop_front().unwrap_or_else(|| Ok(answer(200, &[], "")))
    })
}

pub(crate) fn socket_granted(address: &str) -> Result<(), String> {
    HOST.with(|h| h.borrow().check(address))
}

pub(crate) fn socket_send(address: &str, bytes: &[u8]) -> Result<(), Failure> {
    socket_granted(address).map_err(Failure::Refused)?;
    HOST.with(|h| {
        let mut h = h.borrow_mut();
        h.sent.push((address.to_owned(), bytes.to_vec()));
        h.answers.pop_front().unwrap_or_else(|| Ok(answer(200, &[], ""))).map(drop)
    })
}

impl Host {
    fn check(&self, word: &str) -> Result<(), String> {
        match &self.granted {
            Some(granted) if !granted.iter().any(|g| g == word) => Err(format!("{word} is not granted")),
            _ => Ok(()),
        }
    }
}

pub(crate) fn define(metric: &str, unit: &str, kind: SeriesKind, labels: &[Attribute]) -> Result<u32, String> {
    HOST.with(|h| {
        let mut h = h.borrow_mut();
        h.define_calls += 1;
        if metric.is_empty() {
            return Err("a metric needs a name".to_owned());
        }
        let mut labels = labels.to_vec();
        labels.sort_by(|a, b| a.key.cmp(&b.key));
        let same = |d: &SeriesDef| d.metric == metric && d.unit == unit && d.kind == kind && d.labels == labels;
        if let Some(known) = h.series.iter().find(|d| same(d)) {
            return Ok(known.id);
        }
        if h.max_series.is_some_and(|max| h.series.len() >= max) {
            return Err(format!("more than {} series", h.series.len()));
        }
        let id = h.series.len() as u32;
        h.series.push(SeriesDef { id, metric: metric.to_owned(), unit: unit.to_owned(), kind, labels });
        Ok(id)
    })
}

pub(crate) fn state_code(series: u32, text: &str) -> Result<f64, String> {
    HOST.with(|h| {
        let mut h = h.borrow_mut();
        match h.series.get(series as usize).map(|d| d.kind) {
            Some(SeriesKind::State) => {
                let next = h.codes.len() as f64;
                Ok(*h.codes.entry(text.to_owned()).or_insert(next))
            }
            _ => Err(format!("series {series} is not a state series")),
        }
    })
}
