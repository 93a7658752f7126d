//! What a receiver's answer means for the document.

use crate::RETRY_MS;
use hb_sdk::http::Response;

/// Longest wait that is passed on, one day: what is meant to be later has not been meant.
const MAX_WAIT_S: i64 = 86_400;

/// Characters of the answer's body that stand in a reason.
const MAX_QUOTED_CHARS: usize = 200;

/// What becomes of a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Delivered,
    Rejected(String),
    /// After so many milliseconds.
    Retry(u32, String),
}

/// Judges by status: 2xx is there; what may be different later is tried again; everything else never works.
pub(crate) fn judge(response: &Response) -> Verdict {
    let reason = || reason(response);
    match response.status {
        200..=299 => Verdict::Delivered,
        // Too slow, too early, too many, and all that goes wrong inside the receiver.
        408 | 425 | 429 | 500..=599 => Verdict::Retry(wait_ms(response), reason()),
        300..=399 => {
            let to = response.header("location").map_or(String::new(), |to| format!(" to {}", quoted(to)));
            Verdict::Rejected(format!("HTTP {}: redirects{to} are not followed; name that URL itself", response.status))
        }
        _ => Verdict::Rejected(reason()),
    }
}

fn reason(response: &Response) -> String {
    let body = String::from_utf8_lossy(&response.body);
    let said = quoted(body.trim());
    if said.is_empty() { format!("HTTP {}", response.status) } else { format!("HTTP {}: {said}", response.status) }
}

fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// `Retry-After` in seconds, or as a date, which is read against the answer's own `Date`: there is no other clock.
fn wait_ms(response: &Response) -> u32 {
    let Some(after) = response.header("retry-after").map(str::trim) else { return RETRY_MS };
    let digits = !after.is_empty() && after.bytes().all(|b| b.is_ascii_digit());
    let wait_s = if digits {
        Some(after.parse().unwrap_or(MAX_WAIT_S))
    } else {
        let date = response.header("date").and_then(|date| seconds(date.trim()));
        seconds(after).zip(date).map(|(then, now)| then - now)
    };
    wait_s.map_or(RETRY_MS, |s| s.clamp(0, MAX_WAIT_S) as u32 * 1_000)
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is still written, as seconds since the Unix epoch.
fn seconds(date: &str) -> Option<i64> {
    let [_, day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|m| *m == month)? + 1;
    let text = format!("{year}-{month:02}-{day}T{time}Z");
    hb_sdk::time::parse_rfc3339(text.as_bytes()).ok().map(|ns| ns.div_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hb_sdk::testkit::host::answer;

    #[test]
    fn the_status_decides() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judge(&answer(status, &[], "")), Verdict::Delivered, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let want = Verdict::Retry(RETRY_MS, format!("HTTP {status}: busy"));
            assert_eq!(judge(&answer(status, &[], " busy\n")), want);
        }
        for status in [100, 400, 401, 404, 409, 410, 422, 600] {
            assert_eq!(judge(&answer(status, &[], "")), Verdict::Rejected(format!("HTTP {status}")));
        }
        let moved = judge(&answer(308, &[("location", "https://h/new")], ""));
        let want = "HTTP 308: redirects to https://h/new are not followed; name that URL itself";
        assert_eq!(moved, Verdict::Rejected(want.into()));
        let Verdict::Rejected(why) = judge(&answer(400, &[], &"ä".repeat(1_000))) else { panic!() };
        assert_eq!(why.chars().count(), "HTTP 400: ".len() + MAX_QUOTED_CHARS + 1);
    }

    #[test]
    fn the_receiver_says_how_long_to_wait() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (headers, ms) in [
            (&[("retry-after", "7")][..], 7_000),
            (&[("retry-after", "0")], 0),
            (&[("retry-after", "99999999999999999999")], 86_400_000),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], 30_000),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT"), date], 0),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], RETRY_MS),
            (&[("retry-after", "-5")], RETRY_MS),
            (&[("retry-after", "soon"), date], RETRY_MS),
            (&[("retry-after", "")], RETRY_MS),
        ] {
            assert_eq!(wait_ms(&answer(503, headers, "")), ms, "{headers:?}");
        }
    }
}
