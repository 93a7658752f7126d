//! template reads lines such as `boiler1 21.5`: an asset and one value.

use hb_sdk::{Fault, Frame, Normalizer, Out, SeriesKind, SeriesTable};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    metric: String,
    #[serde(default)]
    unit: String,
}

struct Template {
    settings: Settings,
    series: SeriesTable,
}

impl Normalizer for Template {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        Ok(Self { settings, series: SeriesTable::default() })
    }

    fn frame(&mut self, frame: Frame<'_>, out: &mut Out) {
        match self.read(&frame) {
            Ok(Some((series, value))) => out.sample(series, frame.received_ns, value),
            Ok(None) => out.ignore(),
            Err(reason) => out.reject(reason),
        }
    }
}

impl Template {
    fn read(&mut self, frame: &Frame<'_>) -> Result<Option<(hb_sdk::Series, f64)>, String> {
        let line = frame.text().map_err(|e| e.to_string())?.trim();
        if line.is_empty() {
            return Ok(None);
        }
        let (asset, value) = line.split_once(' ').ok_or("expected an asset and a value")?;
        let value: f64 = value.trim().parse().map_err(|_| format!("`{value}` is not a number"))?;
        // The table remembers ids: a known series costs no call to the host.
        let Settings { metric, unit } = &self.settings;
        let series = self.series.id(metric, unit, SeriesKind::Gauge, &[("asset", asset)])?;
        Ok(Some((series, value)))
    }
}

hb_sdk::export_normalizer!(Template);

#[cfg(test)]
mod tests {
    use super::Template;
    use hb_sdk::testkit::assert_pure;

    #[test]
    fn lines_become_samples() {
        let frames = ["boiler1 21.5".into(), "boiler2 x".into(), " ".into(), "boiler2 nan".into(), "b".into()];
        let report = assert_pure::<Template>(r#"{"metric":"temperature","unit":"degC"}"#, &frames);
        assert_eq!(report.samples.len(), 1);
        assert_eq!((report.samples[0].value, report.samples[0].labels.as_str()), (21.5, "asset=boiler1"));
        let reasons: Vec<_> = report.rejects.iter().map(|r| r.reason.as_str()).collect();
        assert_eq!(reasons, ["`x` is not a number", "a value is not a finite number", "expected an asset and a value"]);
        assert_eq!(report.ignored, 1);
    }
}
