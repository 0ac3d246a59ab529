//! STATE: what is true of the whole directory, in two slots written in turn.

use std::{io, sync::Arc};

use super::{
    directory::{Directory, failed},
    layout::{STATE_MAGIC, STATE_VERSION, array_at, is_checked, put, put_check, u16_at, u32_at, u64_at},
};
use crate::{
    error::Error,
    io::{IoFile, OpenMode},
    location::Seq,
    options::Durability,
    time::Anchor,
};

pub(crate) const SLOT_BYTES: usize = 512;
const CLEAN: u8 = 1;
const COLD: u8 = 2;
/// No honest directory gets here; a slot that says so is not believed, lest the counter wrap.
const GENERATION_MAX: u64 = u64::MAX >> 1;

/// The content of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u64,
    /// Stamped into every file of this life of the directory (R7).
    pub(crate) epoch: u64,
    pub(crate) hash_seed: u64,
    /// All zeros where the platform does not tell.
    pub(crate) boot_id: [u8; 16],
    /// LOCK's device and inode.
    pub(crate) identity: (u64, u64),
    /// Closed in order: the next start need not ask about boot and journal.
    pub(crate) clean: bool,
    /// Nothing on disk may be believed any more.
    pub(crate) cold: bool,
    pub(crate) durability: Durability,
    pub(crate) key_codec: u32,
    pub(crate) value_codec: u32,
    pub(crate) schema_version: u32,
    pub(crate) anchor: Anchor,
    /// Every seq drawn before a clean close is below.
    pub(crate) next_seq: Seq,
    /// Every id of a segment with records from before the run that wrote this slot is below.
    pub(crate) next_segment: u32,
    /// The journal files that must be there: from the first number up to below the second.
    pub(crate) journals: (u32, u32),
    /// Records with an expiry in segments below this id are dead: their deadlines were set by a
    /// clock that has gone back since.
    pub(crate) expiring_dead_below: u32,
    /// Names the snapshot of this clean close; 0 is none.
    pub(crate) snapshot_id: u64,
}

impl State {
    pub(crate) fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        put(&mut bytes, 0, STATE_MAGIC);
        put(&mut bytes, 8, STATE_VERSION.to_le_bytes());
        bytes[10] = if self.clean { CLEAN } else { 0 } | if self.cold { COLD } else { 0 };
        bytes[11] = match self.durability {
            Durability::Clean => 0,
            Durability::ProcessCrash => 1,
            Durability::PowerLoss => 2,
        };
        put(&mut bytes, 12, self.schema_version.to_le_bytes());
        put(&mut bytes, 16, self.generation.to_le_bytes());
        put(&mut bytes, 24, self.epoch.to_le_bytes());
        put(&mut bytes, 32, self.hash_seed.to_le_bytes());
        put(&mut bytes, 40, self.boot_id);
        put(&mut bytes, 56, self.identity.0.to_le_bytes());
        put(&mut bytes, 64, self.identity.1.to_le_bytes());
        put(&mut bytes, 72, self.key_codec.to_le_bytes());
        put(&mut bytes, 76, self.value_codec.to_le_bytes());
        put(&mut bytes, 80, self.anchor.cache_ms.to_le_bytes());
        put(&mut bytes, 88, self.anchor.boot_ms.to_le_bytes());
        put(&mut bytes, 96, self.next_seq.0.to_le_bytes());
        put(&mut bytes, 104, self.next_segment.to_le_bytes());
        put(&mut bytes, 108, self.expiring_dead_below.to_le_bytes());
        put(&mut bytes, 112, self.journals.0.to_le_bytes());
        put(&mut bytes, 116, self.journals.1.to_le_bytes());
        put(&mut bytes, 120, self.snapshot_id.to_le_bytes());
        put_check(&mut bytes, 0);
        bytes
    }

    /// `Err` with the version if the slot is whole but of a newer format. In every version the
    /// magic, the version and the check stay where they are.
    pub(crate) fn decode(bytes: &[u8; SLOT_BYTES]) -> Result<Option<State>, u16> {
        if bytes[..8] != STATE_MAGIC || !is_checked(bytes, 0) {
            return Ok(None);
        }
        match u16_at(bytes, 8) {
            STATE_VERSION => {}
            newer if newer > STATE_VERSION => return Err(newer),
            _ => return Ok(None),
        }
        let durability = match bytes[11] {
            0 => Durability::Clean,
            1 => Durability::ProcessCrash,
            2 => Durability::PowerLoss,
            _ => return Ok(None),
        };
        if bytes[10] & !(CLEAN | COLD) != 0 || u64_at(bytes, 16) > GENERATION_MAX {
            return Ok(None);
        }
        Ok(Some(State {
            generation: u64_at(bytes, 16),
            epoch: u64_at(bytes, 24),
            hash_seed: u64_at(bytes, 32),
            boot_id: array_at(bytes, 40),
            identity: (u64_at(bytes, 56), u64_at(bytes, 64)),
            clean: bytes[10] & CLEAN != 0,
            cold: bytes[10] & COLD != 0,
            durability,
            key_codec: u32_at(bytes, 72),
            value_codec: u32_at(bytes, 76),
            schema_version: u32_at(bytes, 12),
            anchor: Anchor { cache_ms: u64_at(bytes, 80), boot_ms: u64_at(bytes, 88) },
            next_seq: Seq(u64_at(bytes, 96)),
            next_segment: u32_at(bytes, 104),
            expiring_dead_below: u32_at(bytes, 108),
            journals: (u32_at(bytes, 112), u32_at(bytes, 116)),
            snapshot_id: u64_at(bytes, 120),
        }))
    }
}

/// The file. Its last written content stands in `state`.
#[derive(Debug)]
pub(crate) struct StateFile {
    directory: Arc<Directory>,
    file: Arc<dyn IoFile>,
    pub(crate) state: State,
}

impl StateFile {
    /// The newer slot, if both are whole and were written one after the other, as any run leaves
    /// them that has acknowledged something. The older one alone is not to be believed: it may be of
    /// before a journal file that the newer one names.
    ///
    /// And the highest generation of a whole slot, which whatever is written next has to be above: below
    /// it, the first slot of a cold start would follow or precede that slot, and the two be believed.
    pub(crate) fn load(directory: &Directory) -> Result<(Option<State>, u64), Error> {
        let path = directory.state();
        let file = match directory.io.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, 0)),
            Err(error) => return Err(failed("opening", &path, error)),
        };
        let mut slots = [None; 2];
        for (slot, at) in slots.iter_mut().zip([0, SLOT_BYTES as u64]) {
            let mut bytes = [0; SLOT_BYTES];
            // A slot that cannot be read is a damaged slot.
            if file.read_exact_at(&mut bytes, at).is_err() {
                continue;
            }
            *slot = State::decode(&bytes).map_err(|found| Error::NewerFormat {
                dir: directory.path.clone(),
                found,
                supported: STATE_VERSION,
            })?;
        }
        let highest = slots.iter().flatten().map(|state| state.generation).max().unwrap_or(0);
        let [Some(a), Some(b)] = slots else { return Ok((None, highest)) };
        let newest = if b.generation > a.generation { b } else { a };
        Ok(((a.generation.abs_diff(b.generation) == 1).then_some(newest), highest))
    }

    /// Makes `state` the directory's, in both slots and durably: no older slot, and so no older
    /// "clean", can come back when a later, unsynced write is torn by a power loss. The name of a new file
    /// is durable when the directory has been synced.
    ///
    /// A power loss in here may leave the second slot's new content beside the first one's old, which start the
    /// next run cold. Where that has to be warm, the slots are synced one after the other.
    pub(crate) fn begin(directory: &Arc<Directory>, state: State) -> Result<StateFile, Error> {
        let path = directory.state();
        let file = match directory.io.open(&path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directory.io.open(&path, OpenMode::CreateNew)
            }
            opened => opened,
        };
        let file = file.map_err(|error| failed("opening", &path, error))?;
        let mut begun = StateFile { directory: Arc::clone(directory), file, state };
        for _ in 0..2 {
            begun.put(state).map_err(|error| failed("writing", &path, error))?;
        }
        if state.durability != Durability::PowerLoss {
            begun.sync().map_err(|error| failed("syncing", &path, error))?;
        }
        Ok(begun)
    }

    /// The file as it was found, with the newer of its slots.
    pub(crate) fn found(directory: &Arc<Directory>, state: State, mode: OpenMode) -> io::Result<StateFile> {
        let file = directory.io.open(&directory.state(), mode)?;
        Ok(StateFile { directory: Arc::clone(directory), file, state })
    }

    /// Writes `state` as the next generation. In a run that outlives the machine it is durable then: a
    /// second slot in doubt beside the first would leave no two that follow one another.
    pub(crate) fn put(&mut self, state: State) -> io::Result<()> {
        self.write(state)?;
        if state.durability == Durability::PowerLoss { self.sync() } else { Ok(()) }
    }

    /// Writes `state` as the next generation, into the slot that is not the newest. Not synced:
    /// a change that must outlive the machine is followed by [`StateFile::sync`].
    pub(crate) fn write(&mut self, state: State) -> io::Result<()> {
        let next = State { generation: self.state.generation + 1, ..state };
        let slot = next.generation % 2 * SLOT_BYTES as u64;
        self.file.write_all_at(&next.encode(), slot)?;
        self.state = next;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Makes the next start a cold one, by whichever way the disk still offers.
    pub(crate) fn poison(&mut self) -> io::Result<()> {
        if self.state.durability == Durability::PowerLoss {
            return self.poison_durably();
        }
        match self.directory.io.unlink(&self.directory.state()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => self.write(self.cold()),
        }
    }

    /// An unlink may be lost with the power, a slot that is synced is not. It comes first, since a
    /// directory's sync, once failed, proves nothing when it succeeds.
    fn poison_durably(&mut self) -> io::Result<()> {
        let io = Arc::clone(&self.directory.io);
        let unlinked = match self.write(self.cold()).and_then(|()| self.sync()) {
            Ok(()) => return io.unlink(&self.directory.state()).or(Ok(())),
            Err(error) => io.unlink(&self.directory.state()).map_err(|_| error),
        };
        unlinked.and_then(|()| io.sync_dir(&self.directory.path))
    }

    fn cold(&self) -> State {
        State { cold: true, clean: false, ..self.state }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn state() -> State {
        State {
            generation: 7,
            epoch: 0x0102_0304_0506_0708,
            hash_seed: 0x1112_1314_1516_1718,
            boot_id: *b"boot-id-16-bytes",
            identity: (2049, 131_073),
            clean: true,
            cold: false,
            durability: Durability::ProcessCrash,
            key_codec: 1,
            value_codec: 2,
            schema_version: 3,
            anchor: Anchor { cache_ms: 1_700_000_000_000, boot_ms: 5_000 },
            next_seq: Seq(42),
            next_segment: 9,
            journals: (1, 3),
            expiring_dead_below: 4,
            snapshot_id: 0x2122_2324_2526_2728,
        }
    }

    #[test]
    fn every_flip_is_rejected() {
        let bytes = state().encode();
        assert_eq!(State::decode(&bytes), Ok(Some(state())));
        for bit in 0..SLOT_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::decode(&flipped), Ok(None), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = state().encode();
        put(&mut bytes, 8, (STATE_VERSION + 1).to_le_bytes());
        assert_eq!(State::decode(&bytes), Ok(None));
        put_check(&mut bytes, 0);
        assert_eq!(State::decode(&bytes), Err(STATE_VERSION + 1));
    }
}
