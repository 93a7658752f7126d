//! The series table: numbers for definitions, shared by all normalizer workers, and the dictionary of state texts.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hb_engine::series::{SeriesDef, SeriesId, SeriesKind};
use hb_log::hash::Hash;

/// Series of one program at most: 1,000 assets with 1,000 series each fill 200 MB of table.
pub const SERIES_MAX: usize = 1_000_000;

/// Texts of state series kept for display; a code is its text's hash, so nothing else depends on this table.
pub const STATE_TEXTS_MAX: usize = 100_000;

/// A handle on the table; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SeriesBook(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    defs: Vec<SeriesDef>,
    ids: HashMap<SeriesDef, SeriesId>,
    texts: BTreeMap<(SeriesId, u64), String>,
}

impl SeriesBook {
    /// A table that begins with stored definitions, in order of their numbers.
    pub fn with(defs: impl IntoIterator<Item = SeriesDef>) -> Self {
        let book = SeriesBook::default();
        for def in defs {
            book.lock().push(def);
        }
        book
    }

    /// The number of a series; the same for equal definitions.
    ///
    /// # Errors
    /// A sentence naming the limit, when the table is full.
    pub fn define(&self, def: SeriesDef) -> Result<SeriesId, String> {
        let mut book = self.lock();
        if let Some(&id) = book.ids.get(&def) {
            return Ok(id);
        }
        if book.defs.len() >= SERIES_MAX {
            return Err(format!("the series table is full: {SERIES_MAX} series"));
        }
        Ok(book.push(def))
    }

    /// The code of a text in a state series: the first 48 bits of the text's SHA-256, which a float holds exactly and
    /// which is the same in any order of arrival.
    ///
    /// # Errors
    /// When the series is not of kind state.
    pub fn state_code(&self, series: SeriesId, text: &str) -> Result<f64, String> {
        let mut book = self.lock();
        match book.defs.get(series as usize) {
            Some(def) if def.kind == SeriesKind::State => {}
            Some(def) => return Err(format!("series {def} is not of kind state")),
            None => return Err(format!("series {series} was never defined")),
        }
        let hash = Hash::of(text.as_bytes());
        let code = hash.as_bytes()[..6].iter().fold(0_u64, |sum, &b| sum << 8 | u64::from(b));
        if book.texts.len() < STATE_TEXTS_MAX {
            book.texts.entry((series, code)).or_insert_with(|| text.to_owned());
        }
        Ok(code as f64)
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.lock().defs.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Definitions from number `from` on.
    pub fn since(&self, from: usize) -> Vec<SeriesDef> {
        self.lock().defs.get(from..).unwrap_or_default().to_vec()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // The table is whole after every statement, even if a thread died holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn push(&mut self, def: SeriesDef) -> SeriesId {
        let id = self.defs.len() as SeriesId;
        self.ids.insert(def.clone(), id);
        self.defs.push(def);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_codes_need_no_order() {
        let def = |m: &str, k| SeriesDef::new(m, "", k, []).unwrap();
        let book = SeriesBook::default();
        let a = book.define(def("a", SeriesKind::State)).unwrap();
        let b = book.define(def("b", SeriesKind::Gauge)).unwrap();
        assert_eq!((a, b, book.define(def("a", SeriesKind::State)).unwrap()), (0, 1, 0));
        let again = SeriesBook::with(book.since(0));
        assert_eq!(again.define(def("b", SeriesKind::Gauge)).unwrap(), 1);
        assert_eq!(book.state_code(a, "open").unwrap(), again.state_code(0, "open").unwrap());
        assert_ne!(book.state_code(a, "open").unwrap(), book.state_code(a, "shut").unwrap());
        assert!(book.state_code(b, "open").unwrap_err().contains("not of kind state"));
        assert!(book.state_code(9, "open").is_err());
    }
}
