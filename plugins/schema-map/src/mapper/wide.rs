//! The wide layout: each field is a metric. This is the hot path of the whole program.

use super::{Mapper, define};
use crate::fields::Role;
use crate::json::Value;
use crate::reading::{Reading, is_boolean, read};
use crate::schema::UnmappedText;
use crate::topics::Hit;
use hb_sdk::{Frame, Out, Series, SeriesKind};

/// Where the ids of this frame's series are kept.
struct Place {
    /// Index into `set_ids`; none for labels that have no series yet.
    set: Option<u32>,
}

impl Mapper {
    pub(super) fn wide(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        time: Option<i64>,
        out: &mut Out,
    ) -> Result<(), String> {
        self.key.clear();
        self.key_of_labels(frame, hit)?;
        let mut place = Place { set: self.sets.get(self.key.as_slice()).copied() };
        let mut any = false;
        for i in 0..self.seen.len() {
            let seen = self.seen[i];
            let field = self.fields.get(seen.field);
            let metric = match (field.role, &field.metric) {
                (Role::Refused, _) => return Err(format!("field `{}` has no mapping", field.name())),
                (Role::Mapped | Role::Kept, Some(metric)) => metric,
                _ => continue,
            };
            let (kind, convert) = (metric.kind, metric.convert);
            let reading = match (seen.value, kind) {
                // What nearly every field is, without a detour.
                (Value::Number(n), None | Some(SeriesKind::Gauge)) => {
                    let x = n.to_f64(frame.bytes);
                    if x.is_finite() { Ok(Reading::Number(x)) } else { read(seen.value, kind, frame.bytes) }
                }
                _ => read(seen.value, kind, frame.bytes),
            };
            let reading = match reading {
                Ok(reading) => reading,
                // Nobody promised a number, and the event has it all.
                Err(_) if field.role == Role::Kept && self.is_event => continue,
                Err(e) => return Err(format!("field `{}`: {e}", field.name())),
            };
            if reading == Reading::Nothing {
                continue;
            }
            if let Reading::NoNumber(why) = &reading {
                match (field.role, self.plan.unmapped_text) {
                    (Role::Kept, _) if self.is_event => continue,
                    (Role::Kept, UnmappedText::Ignore) => continue,
                    (Role::Kept, UnmappedText::Reject) => {
                        return Err(format!(
                            "field `{}`: {why}; map it, make it a label, or set `unmapped_text: ignore`",
                            field.name()
                        ));
                    }
                    _ => return Err(format!("field `{}`: {why}", field.name())),
                }
            }
            let Some(time) = time else {
                return Err(format!("timestamp: field `{}` is missing", self.plan.timestamp.field));
            };
            let boolean = kind.is_none() && is_boolean(seen.value, frame.bytes);
            let series = self.wide_series(frame, hit, &mut place, seen.field, boolean)?;
            let value = match reading {
                Reading::Number(x) if boolean => x,
                Reading::Number(x) => convert.apply(x),
                Reading::State(text) => self.codes.code(series, &text)?,
                Reading::Nothing | Reading::NoNumber(_) => continue,
            };
            if !value.is_finite() {
                return Err(format!(
                    "field `{}`: the converted value is too large",
                    self.fields.get(seen.field).name()
                ));
            }
            out.sample(series, time, value);
            any = true;
        }
        if !any {
            out.ignore();
        }
        Ok(())
    }

    fn wide_series(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        place: &mut Place,
        field: u32,
        boolean: bool,
    ) -> Result<Series, String> {
        // A field that is now a number and now a truth is two series.
        let slot = field as usize * 2 + usize::from(boolean);
        if let Some(set) = place.set
            && let Some(&Some(series)) = self.set_ids[set as usize].get(slot)
        {
            return Ok(series);
        }
        let Some(metric) = &self.fields.get(field).metric else { return Err("no metric".to_owned()) };
        let kind = metric.kind.unwrap_or(if boolean { SeriesKind::Boolean } else { SeriesKind::Gauge });
        let series = define(&metric.name, &metric.unit, kind, &self.labels(frame, hit))?;
        // Only what the host accepted is remembered: its cap bounds this memory too.
        let set = *place.set.get_or_insert_with(|| {
            let set = self.set_ids.len() as u32;
            self.set_ids.push(Vec::new());
            self.sets.insert(self.key.as_slice().into(), set);
            set
        });
        let ids = &mut self.set_ids[set as usize];
        if ids.len() <= slot {
            ids.resize(slot + 1, None);
        }
        ids[slot] = Some(series);
        Ok(series)
    }
}
