//! A disk that loses power, fills up or fails, and the proof that the state survives it.
//!
//! The disk remembers every write since the last sync. When the power goes, each 512-byte sector of those writes
//! survives or not by chance, so that writes are torn and reordered as a real disk may do it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::tests::{LANE, PROGRAM, numbered_commit, payload, signer};
use super::*;

const SECTOR: usize = 512;
const BLOCK: u64 = 4_096;

/// A deterministic stream of numbers (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Everything fails from this operation on, until the machine is started again.
    PowerCut {
        at: u64,
    },
    /// This operation fails, and no other.
    Once {
        at: u64,
        errno: i32,
    },
    /// The disk has room for so many blocks.
    Full {
        blocks: usize,
    },
}

#[derive(Debug)]
enum Op {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug)]
struct Platter {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Op>,
    used: BTreeSet<u64>,
    ops: u64,
    fault: Fault,
    fault_hit: bool,
}

/// A disk in memory; clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    pub(super) fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(image: Vec<u8>) -> Self {
        let platter = Platter {
            now: image.clone(),
            durable: image,
            pending: Vec::new(),
            used: BTreeSet::new(),
            ops: 0,
            fault: Fault::None,
            fault_hit: false,
        };
        Self(Arc::new(Mutex::new(platter)))
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        let mut platter = self.0.lock().unwrap();
        platter.fault = fault;
        platter.fault_hit = false;
        platter.ops = 0;
    }

    pub(super) fn fault_hit(&self) -> bool {
        self.0.lock().unwrap().fault_hit
    }

    pub(super) fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.0.lock().unwrap().now);
    }

    /// The disk as the machine finds it after the power came back.
    pub(super) fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let platter = self.0.lock().unwrap();
        let survives = [0, 50, 90, 100][dice.roll(4) as usize];
        let mut image = platter.durable.clone();
        for op in &platter.pending {
            match op {
                Op::SetLen(len) if dice.roll(100) < survives => image.resize(*len as usize, 0),
                Op::SetLen(_) => {}
                Op::Write { offset, data } => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        let start = *offset as usize + number * SECTOR;
                        if dice.roll(100) < survives && start + sector.len() <= image.len() {
                            image[start..start + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        Self::with(image)
    }
}

impl Platter {
    /// Counts an operation that changes the disk; fails it when its time has come.
    fn operate(&mut self) -> io::Result<()> {
        self.ops += 1;
        let errno = match self.fault {
            Fault::PowerCut { at } if self.ops >= at => 5,
            Fault::Once { at, errno } if self.ops == at => errno,
            _ => return Ok(()),
        };
        self.fault_hit = true;
        Err(io::Error::from_raw_os_error(errno))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let platter = self.0.lock().unwrap();
        let start = offset as usize;
        let bytes = platter.now.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut platter = self.0.lock().unwrap();
        platter.operate()?;
        platter.now.resize(len as usize, 0);
        platter.pending.push(Op::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut platter = self.0.lock().unwrap();
        platter.operate()?;
        let platter = &mut *platter;
        for op in platter.pending.drain(..) {
            match op {
                Op::SetLen(len) => platter.durable.resize(len as usize, 0),
                Op::Write { offset, data } => {
                    platter.durable[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut platter = self.0.lock().unwrap();
        platter.operate()?;
        let touched: Vec<u64> = (offset / BLOCK..=(offset + data.len() as u64 - 1) / BLOCK).collect();
        if let Fault::Full { blocks } = platter.fault {
            let fresh = touched.iter().filter(|block| !platter.used.contains(block)).count();
            if platter.used.len() + fresh > blocks {
                platter.fault_hit = true;
                return Err(io::Error::from_raw_os_error(28));
            }
        }
        platter.used.extend(touched);
        platter.now[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        platter.pending.push(Op::Write { offset, data: data.to_vec() });
        Ok(())
    }
}

/// Opens the state on a disk, as after a start of the machine with this boot id.
pub(super) fn open_on(disk: &Disk, boot_id: fn() -> String) -> Result<State, StateError> {
    open_with(disk, boot_id, Options { cache_bytes: 1 << 20, ..Options::default() })
}

/// Like [`open_on`], with limits.
pub(super) fn open_with(disk: &Disk, boot_id: fn() -> String, options: Options) -> Result<State, StateError> {
    let created = disk.len().unwrap() == 0;
    let make = disk.clone();
    let place = Place {
        open: Box::new(move |builder: &Builder| builder.create_with_backend(make.clone())),
        path: None,
        boot_id,
    };
    if created {
        create_facts(&(place.open)(&builder(&options))?)?;
    }
    State::open_at(place, options, created, None)
}

pub(super) fn first_boot() -> String {
    "first".to_owned()
}

pub(super) fn other_boot() -> String {
    "other".to_owned()
}

/// Everything the state says must follow from how many commits it holds; returns that number.
fn check(state: &State) -> u64 {
    let reader = state.reader().unwrap();
    let count = reader.commits().unwrap();
    let cursor = reader.cursor(PROGRAM, "plant").unwrap().map_or(0, |c| u64::from_le_bytes(c.try_into().unwrap()));
    assert_eq!(cursor, count, "the cursor is where the commits are");

    let rows: Vec<_> = reader.journal(PROGRAM, LANE, 0).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len() as u64, count);
    for (n, row) in rows.iter().enumerate() {
        assert_eq!((row.seq, row.count), (n as u64 * 10, 10));
        assert!(row.bytes == payload(n as u64 + 1), "the journal holds what was written");
    }
    let frames: Vec<_> = reader.frames(PROGRAM, LANE, "plant", 0, u64::MAX).unwrap().map(Result::unwrap).collect();
    assert_eq!(frames.len() as u64, count);
    assert_eq!(reader.decisions(PROGRAM, LANE, DecisionFilter::default()).unwrap().count() as u64, count);
    assert_eq!(reader.entry_count().unwrap(), count * 3);
    let snapshots = reader.latest_snapshots(PROGRAM, LANE).unwrap();
    assert_eq!(snapshots.first().map_or(0, |snapshot| snapshot.seq), count * 10);
    assert_eq!(reader.counters(PROGRAM, LANE).unwrap().first().map_or(0, |counter| counter.1), count * 10);
    if count > 0 {
        let key = hb_log::sign::PublicKey::parse(&signer().public_text()).unwrap();
        assert_eq!(reader.verify_log(&key).unwrap().size, count * 3);
    }
    count
}

/// Commits until something fails; returns the last commit that was acknowledged.
fn commit_until_error(state: &mut State, mut done: u64, limit: u64) -> (u64, Option<StateError>) {
    while done < limit {
        match state.commit(numbered_commit(done + 1), signer()) {
            Ok(committed) => {
                done += 1;
                assert_eq!(committed.txn, done);
            }
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

#[test]
fn no_acknowledged_commit_is_lost_when_the_power_goes() {
    let (mut cuts, mut commits) = (0, 0);
    for seed in 0..240 {
        let mut dice = Dice(seed);
        let mut disk = Disk::new();
        let mut state = open_on(&disk, first_boot).unwrap();
        let mut acknowledged = 0;
        for _ in 0..2 {
            disk.set_fault(Fault::PowerCut { at: 1 + dice.roll(240) });
            let limit = acknowledged + 1 + dice.roll(12);
            let (done, error) = commit_until_error(&mut state, acknowledged, limit);
            if let Some(error) = error {
                assert!(matches!(error, StateError::World { .. }), "seed {seed}: {error}");
            }
            // Without the drop: a machine without power writes no farewell.
            let next = disk.after_power_cut(&mut dice);
            cuts += u64::from(disk.fault_hit());
            disk.set_fault(Fault::PowerCut { at: 0 });
            drop(state);
            disk = next;
            state = open_on(&disk, if dice.roll(2) == 0 { first_boot } else { other_boot })
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = check(&state);
            assert!(found >= done && found <= done + 1, "seed {seed}: {done} acknowledged, {found} found");
            commits += found - acknowledged;
            acknowledged = found;
        }
        disk.set_fault(Fault::None);
        let (_, error) = commit_until_error(&mut state, acknowledged, acknowledged + 2);
        assert!(error.is_none(), "seed {seed}: {error:?}");
        check(&state);
    }
    assert!(cuts > 200 && commits > 200, "{cuts} cuts in {commits} commits prove nothing");
}

#[test]
fn a_full_disk_is_named_and_reopening_goes_on() {
    for extra in 0..40 {
        let disk = Disk::new();
        let mut state = open_on(&disk, first_boot).unwrap();
        let room = disk.0.lock().unwrap().used.len() + 5 + extra;
        disk.set_fault(Fault::Full { blocks: room });
        let (done, error) = commit_until_error(&mut state, 0, 1_000);
        let error = error.unwrap();
        assert!(error.is_disk_full(), "{error}");
        assert!(error.to_string().contains("free space"), "{error}");
        assert!(matches!(state.commit(numbered_commit(done + 1), signer()), Err(StateError::Poisoned)));

        state.reopen().unwrap(); // still full: what is stored can be read
        let found = check(&state);
        assert!(found == done || found == done + 1);
        disk.set_fault(Fault::None);
        state.reopen().unwrap();
        assert_eq!(check(&state), found);
        let (_, error) = commit_until_error(&mut state, found, found + 3);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(check(&state), found + 3);
    }
}

#[test]
fn one_failed_write_poisons_the_handle_and_loses_nothing() {
    let mut hits = 0;
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let disk = Disk::new();
        let mut state = open_on(&disk, first_boot).unwrap();
        disk.set_fault(Fault::Once { at: 1 + dice.roll(150), errno: 5 });
        let (done, error) = commit_until_error(&mut state, 0, 10);
        let Some(error) = error else { continue };
        hits += 1;
        assert!(matches!(error, StateError::World { .. }), "{error}");
        assert!(!error.is_disk_full());
        assert!(matches!(state.commit(numbered_commit(done + 1), signer()), Err(StateError::Poisoned)));
        state.reopen().unwrap();
        let found = check(&state);
        assert!(found == done || found == done + 1, "seed {seed}");
        commit_until_error(&mut state, found, found + 2);
        assert_eq!(check(&state), found + 2);
    }
    assert!(hits > 50, "{hits} faults prove nothing");
}

#[test]
fn a_reopen_ends_readers_instead_of_confusing_them() {
    let disk = Disk::new();
    let mut state = open_on(&disk, first_boot).unwrap();
    commit_until_error(&mut state, 0, 2);
    let reader = state.reader().unwrap();
    state.reopen().unwrap();
    // Pages in memory may still answer; whatever needs the closed file says so.
    match reader.commits() {
        Ok(count) => assert_eq!(count, 2),
        Err(error) => assert!(matches!(error, StateError::Poisoned), "{error}"),
    }
    assert_eq!(state.reader().unwrap().commits().unwrap(), 2);
}
