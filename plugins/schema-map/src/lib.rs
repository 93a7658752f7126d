//! schema-map gives JSON its meaning by one mapping file: vendor names become canonical metrics in canonical units.

mod clock;
mod fields;
mod hb_labels;
mod json;
mod mapper;
mod patterns;
mod plan;
mod reading;
mod schema;
mod topics;
mod units;
mod words;

use hb_sdk::{Fault, Frame, Normalizer, Out};
use mapper::Mapper;
use plan::Plan;
use schema::Schema;

/// Maps fields to series.
pub struct SchemaMap {
    mapper: Mapper,
}

impl Normalizer for SchemaMap {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let plan = Schema::parse(settings).and_then(Plan::compile).map_err(Fault::BadSettings)?;
        Ok(Self { mapper: Mapper::new(plan) })
    }

    fn frame(&mut self, frame: Frame<'_>, out: &mut Out) {
        if let Err(reason) = self.mapper.frame(&frame, out) {
            out.reject(reason);
        }
    }
}

hb_sdk::export_normalizer!(SchemaMap);

#[cfg(test)]
mod tests;
