//! How much memory a model may take.

use crate::mlx::Device;

/// Bytes of memory that are free for a model on `device`; `None` where the system does not say.
///
/// On a GPU, what its driver recommends as working set. Else on Linux, what the kernel can hand
/// out without swapping (`MemAvailable`), within the limits of the process' control groups; on a
/// Mac, the installed memory.
pub fn available_memory(device: Device) -> Option<u64> {
    match device {
        Device::Gpu => Device::gpu_memory().ok(),
        Device::Cpu => system_memory(),
    }
}

#[cfg(target_os = "linux")]
fn system_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let system = linux::meminfo_available(&meminfo)?;
    Some(linux::cgroup_available().map_or(system, |limit| limit.min(system)))
}

#[cfg(target_os = "macos")]
fn system_memory() -> Option<u64> {
    let mut bytes = 0u64;
    let mut size = size_of::<u64>();
    // SAFETY: `hw.memsize` is a 64-bit number, and `size` says that there is room for it.
    let status = unsafe {
        libc::sysctlbyname(
            c"hw.memsize".as_ptr(),
            (&raw mut bytes).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    (status == 0).then_some(bytes)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn system_memory() -> Option<u64> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    /// `MemAvailable` of `/proc/meminfo`, in bytes.
    pub fn meminfo_available(meminfo: &str) -> Option<u64> {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    }

    /// What the strictest control group (v2) around this process leaves.
    pub fn cgroup_available() -> Option<u64> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let root = Path::new("/sys/fs/cgroup");
        root.join(own)
            .ancestors()
            .take_while(|group| group.starts_with(root))
            .filter_map(group_available)
            .min()
    }

    /// What one group leaves: its limit less what it holds, file cache not counted.
    pub fn group_available(group: &Path) -> Option<u64> {
        let number = |file: &str| -> Option<u64> {
            std::fs::read_to_string(group.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        // "max", where there is no limit, is not a number.
        let limit = number("memory.max")?;
        let used = number("memory.current").unwrap_or(0);
        let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = stat
            .lines()
            .find_map(|line| line.strip_prefix("inactive_file "))
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_its_memory() {
        assert!(available_memory(Device::Cpu).unwrap() > 1 << 20);
    }

    #[test]
    fn meminfo_is_read_in_kilobytes() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   21000000 kB\n";
        assert_eq!(linux::meminfo_available(text), Some(21_000_000 * 1024));
        assert_eq!(linux::meminfo_available("MemTotal: 3 kB"), None);
    }

    #[test]
    fn a_group_leaves_its_limit_less_its_use_without_cache() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file, text| std::fs::write(dir.path().join(file), text).unwrap();
        write("memory.max", "max\n");
        assert_eq!(linux::group_available(dir.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 400\ninactive_file 300\n");
        assert_eq!(linux::group_available(dir.path()), Some(600));
    }
}
