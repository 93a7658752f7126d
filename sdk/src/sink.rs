//! A sink carries documents and points to the outside and says what became of each.

use crate::wit::sink::exports::hb::plugin::consume::{Delivery as Answer, Document as RawDocument, Outcome};
use crate::wit::types::{Fault, Samples, SeriesDef};

/// What the author of a sink writes. Put it into the world with [`export_sink!`](crate::export_sink).
pub trait Sink: Sized {
    /// Makes the plugin of its settings, a JSON text that the manifest's schema has accepted.
    fn configure(settings: &str) -> Result<Self, Fault>;

    /// Delivers what is given and notes the outcome of each. What is not noted is offered again.
    fn deliver(
        &mut self,
        batch_id: u64,
        documents: &[Document],
        points: &Points<'_>,
        out: &mut Delivery,
    ) -> Result<(), Fault>;
}

/// A versioned JSON document: an alert, an action request, a decision.
pub type Document = RawDocument;

/// One sample with the series it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// What the value means.
    pub series: &'a SeriesDef,
    /// Event time in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Finite.
    pub value: f64,
}

/// The points of a delivery.
pub struct Points<'a> {
    defs: &'a [SeriesDef],
    /// (id, index in `defs`), sorted.
    index: Vec<(u32, usize)>,
    samples: &'a Samples,
}

impl<'a> Points<'a> {
    fn new(defs: &'a [SeriesDef], samples: &'a Samples) -> Self {
        let mut index: Vec<_> = defs.iter().enumerate().map(|(i, def)| (def.id, i)).collect();
        index.sort_unstable();
        Self { defs, index, samples }
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.samples.series.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.series.is_empty()
    }

    /// The points in order. A point without a definition is left out; the host never sends one.
    pub fn iter(&self) -> impl Iterator<Item = Point<'a>> + '_ {
        let s = self.samples;
        s.series.iter().zip(&s.time_ns).zip(&s.value).filter_map(|((id, &time_ns), &value)| {
            let at = self.index.binary_search_by_key(id, |&(id, _)| id).ok()?;
            Some(Point { series: &self.defs[self.index[at].1], time_ns, value })
        })
    }
}

/// What became of a delivery.
pub struct Delivery {
    answer: Answer,
}

impl Delivery {
    /// Document `index` is there.
    pub fn delivered(&mut self, index: usize) {
        self.answer.documents[index] = Outcome::Delivered;
    }

    /// The receiver will never take document `index`.
    pub fn rejected(&mut self, index: usize, reason: impl Into<String>) {
        self.answer.documents[index] = Outcome::Rejected(reason.into());
    }

    /// Document `index` cannot be delivered now.
    pub fn retry(&mut self, index: usize, after_ms: u32, reason: impl Into<String>) {
        self.answer.documents[index] = Outcome::RetryAfterMs((after_ms, reason.into()));
    }

    /// The points are there.
    pub fn points_delivered(&mut self) {
        self.answer.points = Outcome::Delivered;
    }

    /// The receiver will never take the points.
    pub fn points_rejected(&mut self, reason: impl Into<String>) {
        self.answer.points = Outcome::Rejected(reason.into());
    }

    /// Everything is there.
    pub fn all_delivered(&mut self) {
        self.answer.documents.fill(Outcome::Delivered);
        self.answer.points = Outcome::Delivered;
    }

    /// Nothing could be delivered now.
    pub fn retry_all(&mut self, after_ms: u32, reason: &str) {
        self.answer.documents.fill(Outcome::RetryAfterMs((after_ms, reason.to_owned())));
        self.answer.points = Outcome::RetryAfterMs((after_ms, reason.to_owned()));
    }
}

/// Appends bytes to the output that the host granted: its stdout or a file. All of them or none.
/// The error is the world's (disk full, pipe closed): retry.
pub fn write_output(bytes: &[u8]) -> Result<(), String> {
    host::write(bytes)
}

/// Wait this long before offering again what a sink did not mention.
const UNMENTIONED_RETRY_MS: u32 = 1_000;

#[doc(hidden)]
pub fn deliver<S: Sink>(
    plugin: &mut S,
    batch_id: u64,
    documents: &[Document],
    defs: &[SeriesDef],
    samples: &Samples,
) -> Result<Answer, Fault> {
    let unsaid = || Outcome::RetryAfterMs((UNMENTIONED_RETRY_MS, "the sink did not mention it".to_owned()));
    let points = Points::new(defs, samples);
    let answer = Answer {
        documents: documents.iter().map(|_| unsaid()).collect(),
        points: if points.is_empty() { Outcome::Delivered } else { unsaid() },
    };
    let mut out = Delivery { answer };
    plugin.deliver(batch_id, documents, &points, &mut out)?;
    Ok(out.answer)
}

#[cfg(target_arch = "wasm32")]
mod host {
    pub(super) use crate::wit::output::write;
}

#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) use crate::testkit::host::write_output as write;
}

/// Exports a type that implements [`Sink`] as the component's sink. Once per crate.
#[macro_export]
macro_rules! export_sink {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::glue::Slot<$plugin> = const { $crate::glue::Slot::new(None) };
            }
            struct Component;
            impl $crate::wit::sink::exports::hb::plugin::consume::Guest for Component {
                fn configure(settings: ::std::string::String) -> ::std::result::Result<(), $crate::Fault> {
                    SLOT.with(|slot| $crate::glue::configure(slot, || <$plugin as $crate::Sink>::configure(&settings)))
                }
                fn deliver(
                    batch_id: u64,
                    documents: ::std::vec::Vec<$crate::Document>,
                    defs: ::std::vec::Vec<$crate::SeriesDef>,
                    points: $crate::wit::types::Samples,
                ) -> ::std::result::Result<$crate::wit::sink::exports::hb::plugin::consume::Delivery, $crate::Fault>
                {
                    SLOT.with(|slot| {
                        $crate::glue::with(slot, |plugin| {
                            $crate::glue::sink_deliver(plugin, batch_id, &documents, &defs, &points)
                        })
                    })
                }
            }
            // The names of the component ABI mean nothing to a native linker.
            #[cfg(target_arch = "wasm32")]
    $crate::wit::sink::export!(Component with_types_in $crate::wit::sink);
        };
    };
}
