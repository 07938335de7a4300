//! Memory: the amount available to the process, and its division.
//!
//! Data that lasts through a batch grows with the input: the catalogue, names that it lacks, report items, uploads. It
//! is charged by its bytes ([`Memory::lasting`]). Data in transit is bounded in number, by lower bounds where memory is
//! small. The rest is for the program itself, the messages of two windows, requests, and fragmentation.

use std::path::Path;

use bytesize::ByteSize;

/// Memory that is assumed when neither a setting nor a container limits it.
const DEFAULT_BYTES: u64 = 2 << 30;
/// Smallest memory in which a batch of any files can be processed.
pub const MIN_BYTES: u64 = 256 << 20;
/// Memory of the program itself, the messages of its windows, and the bodies that it reads ahead.
const FIXED_BYTES: u64 = 96 << 20;

/// Bytes of a row of three columns, for which row groups are measured.
const NARROW_ROW_BYTES: usize = 20;
/// The least number of rows in a row group: with fewer, every column has its overhead too often.
const LEAST_ROWS: usize = 8 << 10;

/// The memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    bytes: u64,
}

impl Memory {
    /// Determines the memory: the setting; else the container's limit; else 2 GiB, or the machine's memory if that is
    /// less.
    pub fn of(setting: Option<ByteSize>) -> Self {
        let bytes = setting.map_or_else(
            || {
                let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
                let container = container_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
                let machine = machine_bytes(&read("/proc/meminfo")).unwrap_or(u64::MAX);
                container.filter(|&limit| limit < machine).unwrap_or(DEFAULT_BYTES.min(machine))
            },
            |setting| setting.as_u64(),
        );
        Memory { bytes }
    }

    /// Returns the memory that remains when `lasting` additional bytes last through the batch.
    pub fn without(self, lasting: usize) -> Self {
        Memory { bytes: self.bytes.saturating_sub(2 * lasting as u64) }
    }

    /// The total, in bytes.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// Bytes for the catalogue, the names that it lacks, and the report items and uploads of a batch.
    pub fn lasting(self) -> usize {
        bytes(self.bytes.saturating_sub(FIXED_BYTES) / 2)
    }

    /// Bytes for the catalogue: half of the lasting ones, because a changed catalogue is loaded beside the present one.
    pub fn catalogue(self) -> usize {
        self.lasting() / 2
    }

    /// Rows in a row group, if a row takes so many bytes: fewer rows if they are wide.
    pub fn row_group_rows(self, row_bytes: usize) -> usize {
        let narrow = bytes(self.bytes / (2 << 10)).clamp(64 << 10, 512 << 10);
        (narrow.saturating_mul(NARROW_ROW_BYTES) / row_bytes.max(NARROW_ROW_BYTES)).max(LEAST_ROWS)
    }

    /// Blocks that are parsed ahead.
    pub fn blocks_ahead(self, cores: usize) -> usize {
        bytes(self.bytes / (64 << 20)).clamp(2, (4 * cores).max(2))
    }

    /// Row groups that are encoded while the next one is filled.
    pub fn row_groups_ahead(self, cores: usize) -> usize {
        bytes(self.bytes / (512 << 20)).clamp(1, cores.max(1)) - 1
    }

    /// Delta files that are encoded concurrently.
    pub fn delta_files_ahead(self, cores: usize) -> usize {
        bytes(self.bytes / (256 << 20)).clamp(1, cores + 1)
    }

    /// Bytes for the rows of curated files that become one, and for their encoding. No batch is at work meanwhile.
    pub fn compaction(self) -> usize {
        bytes(self.bytes / 8).min(256 << 20)
    }

    /// Encoded bytes of all days that may wait for their uploads.
    pub fn pending_bytes(self) -> usize {
        bytes(self.bytes / 16).min(64 << 20)
    }
}

fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Returns the bytes of a hash table with this capacity: the number of slots is a power of two, of which seven eighths
/// are used, and each slot has a control byte. Source: <https://docs.rs/hashbrown>.
pub(crate) fn table_bytes<K, V>(capacity: usize) -> usize {
    if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() * (std::mem::size_of::<(K, V)>() + 1) }
}

/// Returns the bytes that a small allocation takes.
pub(crate) fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

/// Returns the lowest memory limit of a process's control groups, which are its container's. `cgroup` is the content of
/// `/proc/self/cgroup`; a group's limit also holds for the groups in it. Source:
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html>.
fn container_limit(root: &Path, cgroup: &str) -> Option<u64> {
    let limits = cgroup.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { return Vec::new() };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        // A container may see its group's name on the host, of which only the root exists inside the container.
        let groups = Path::new(group.trim_start_matches('/')).ancestors();
        let limit = |group| std::fs::read_to_string(root.join(group).join(file)).ok()?.trim().parse::<u64>().ok();
        groups.filter_map(limit).collect()
    });
    limits.min()
}

/// Returns the memory of a machine from the content of its `/proc/meminfo`.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |cgroup| container_limit(root.path(), cgroup);
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "600\n");
        assert_eq!(limit("0::/a/b\n"), Some(600));
        write("memory.max", "500\n");
        assert_eq!(limit("0::/a/b\n"), Some(500));
        assert_eq!(limit("0::/of/the/host\n"), Some(500), "what is not there inside");
        write("memory/x/memory.limit_in_bytes", "400\n");
        assert_eq!(limit("3:cpu,memory:/x\n0::/a\n"), Some(400));
        assert_eq!(limit("nonsense\n"), None);
    }

    #[test]
    fn a_machine_s_memory_is_read() {
        assert_eq!(machine_bytes("MemTotal:       24683656 kB\nMemFree: 1 kB\n"), Some(24_683_656 * 1024));
        assert_eq!(machine_bytes("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_hash_table_s_bytes_are_those_of_its_slots() {
        let mut table = std::collections::HashMap::<u32, [u64; 5]>::new();
        assert_eq!(table_bytes::<u32, [u64; 5]>(table.capacity()), 0);
        for (entries, slots) in [(1, 4), (3, 4), (4, 8), (7, 8), (8, 16), (14, 16), (15, 32), (28, 32), (1000, 2048)] {
            while table.len() < entries {
                table.insert(table.len() as u32, [0; 5]);
            }
            assert_eq!(table_bytes::<u32, [u64; 5]>(table.capacity()), slots * 49, "{entries} entries");
        }
    }

    #[test]
    fn where_memory_is_small_less_is_on_its_way() {
        let small = Memory::of(Some(ByteSize::mib(512)));
        let large = Memory::of(Some(ByteSize::gib(4)));
        assert_eq!((small.row_group_rows(20), large.row_group_rows(20)), (256 << 10, 512 << 10));
        assert_eq!((small.row_groups_ahead(2), large.row_groups_ahead(2)), (0, 1));
        assert_eq!((small.blocks_ahead(64), large.blocks_ahead(64)), (8, 64));
        assert_eq!(Memory::of(Some(ByteSize(0))).lasting(), 0);
    }
}
