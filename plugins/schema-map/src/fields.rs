//! Names of fields become numbers once, together with all that the schema says about them.

use crate::plan::{Metric, Plan};
use crate::schema::{Layout, Unmapped};
use crate::units::Convert;
use hb_sdk::ByteHasher;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

pub(crate) type ByteMap<V> = HashMap<Box<[u8]>, V, BuildHasherDefault<ByteHasher>>;

/// A name that was met, and what to do with it.
pub(crate) struct Field {
    pub(crate) name: Box<[u8]>,
    pub(crate) role: Role,
    /// What its values become; for mapped and for kept fields.
    pub(crate) metric: Option<Metric>,
    /// Indices of the labels that take its value.
    pub(crate) labels: Vec<u16>,
    pub(crate) long: LongPart,
    /// The last frame that had it, to find a name that is there twice.
    pub(crate) stamp: u64,
}

impl Field {
    pub(crate) fn name(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }

    /// Whether it is said what the field is, so that in the long layout it is no label of its own name.
    pub(crate) fn is_no_label(&self) -> bool {
        matches!(self.role, Role::Time | Role::Label) || (self.role == Role::Known && self.long == LongPart::Other)
    }
}

/// What a field is in the wide layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Time,
    /// A label and nothing else.
    Label,
    /// Of use to events or patterns, and no metric.
    Known,
    Mapped,
    /// A metric of its own name.
    Kept,
    Ignored,
    /// It makes the frame a reject.
    Refused,
}

/// What a field is in the long layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongPart {
    Metric,
    Value,
    Unit,
    /// `k=v;k=v`.
    Labels,
    Other,
}

/// All names met so far. It is a cache: clearing it changes no output.
#[derive(Default)]
pub(crate) struct Fields {
    ids: ByteMap<u32>,
    list: Vec<Field>,
    bytes: usize,
}

/// Names that are remembered. Real devices have tens of fields; the rest of the room is for hostile ones.
const MAX_FIELDS: usize = 4_096;

/// Bytes of names that are remembered.
const MAX_NAME_BYTES: usize = 1 << 18;

impl Fields {
    /// Whether it has outgrown its bounds; to be asked between two frames.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() > MAX_FIELDS || self.bytes > MAX_NAME_BYTES
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn get(&self, id: u32) -> &Field {
        &self.list[id as usize]
    }

    /// Notes that frame `stamp` has the field; false when it had it already.
    pub(crate) fn mark(&mut self, id: u32, stamp: u64) -> bool {
        let field = &mut self.list[id as usize];
        let first = field.stamp != stamp;
        field.stamp = stamp;
        first
    }

    pub(crate) fn intern(&mut self, name: &[u8], plan: &Plan) -> u32 {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.list.len() as u32;
        self.bytes += name.len();
        self.ids.insert(name.into(), id);
        self.list.push(Field::new(name, plan));
        id
    }
}

impl Field {
    fn new(name: &[u8], plan: &Plan) -> Self {
        let is = |text: &str| text.as_bytes() == name;
        let slots = plan.field_labels.iter().enumerate().filter(|(_, label)| is(&label.field));
        let labels: Vec<u16> = slots.map(|(slot, _)| slot as u16).collect();
        let mapped = std::str::from_utf8(name).ok().and_then(|name| plan.mapping.get(name));
        let role = if is(&plan.timestamp.field) {
            Role::Time
        } else if mapped.is_some() {
            Role::Mapped
        } else if !labels.is_empty() {
            Role::Label
        } else if plan.is_known(name) {
            Role::Known
        } else {
            match plan.unmapped {
                Unmapped::Keep => Role::Kept,
                Unmapped::Ignore => Role::Ignored,
                Unmapped::Reject => Role::Refused,
            }
        };
        let metric = match role {
            Role::Mapped => mapped.cloned(),
            Role::Kept => Some(kept(String::from_utf8_lossy(name).into_owned(), "")),
            _ => None,
        };
        let long = match plan.layout {
            Layout::Wide => LongPart::Other,
            _ if is(&plan.long.metric) => LongPart::Metric,
            _ if is(&plan.long.value) => LongPart::Value,
            _ if is(&plan.long.unit) => LongPart::Unit,
            _ if name == b"labels" => LongPart::Labels,
            _ => LongPart::Other,
        };
        Self { name: name.into(), role, metric, labels, long, stamp: 0 }
    }
}

/// A metric as it came.
pub(crate) fn kept(name: String, unit: &str) -> Metric {
    Metric { name, unit: unit.to_owned(), kind: None, convert: Convert::IDENTITY }
}
