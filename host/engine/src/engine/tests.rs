//! The engine from within: what it holds on to.

use super::*;
use crate::baseline::Builder;
use crate::decision::{Decision, Severity};
use crate::judge::{Ask, Verdict};
use crate::series::SeriesKind;

struct Nobody;

impl Judge for Nobody {
    fn judge(&mut self, _: &Ask<'_>) -> Vec<Verdict> {
        Vec::new()
    }

    fn severity(&mut self, _: &Decision) -> Option<Severity> {
        None
    }
}

#[test]
fn what_is_replaced_is_forgotten() {
    let volt = SeriesDef::new("volt", "V", SeriesKind::Gauge, []).unwrap();
    let mut engine = Engine::new("default", "live");
    for n in 0..100_u32 {
        let mut builder = Builder::new();
        builder.push(&volt, 0, f64::from(n));
        let baseline = Some((n, Arc::new(builder.build(vec![]))));
        engine.step(Input::Baseline { tag: if n == 0 { "golden" } else { "rolling" }, baseline }, &mut Nobody);
        let idle_ns = i64::from(n) * NS_PER_SEC;
        engine.step(Input::Generation(Arc::new(EngineSpec { idle_ns, ..EngineSpec::default() })), &mut Nobody);
    }
    assert_eq!((engine.world.specs.len(), engine.world.baselines.len()), (1, 2));
    engine.step(Input::Baseline { tag: "golden", baseline: None }, &mut Nobody);
    assert_eq!(engine.world.baselines.len(), 1, "a tag that names nothing holds nothing");
}
