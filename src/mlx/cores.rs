//! How many cores this process may use.

use std::collections::BTreeSet;
use std::path::Path;

/// Physical cores within the process' affinity, and within the CPU time that its control group grants.
///
/// A second thread on a core finds its arithmetic units taken: kernels run no faster for it.
pub(super) fn usable_cores() -> usize {
    // The standard library knows affinity and quota.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = physical_cores(Path::new("/sys/devices/system/cpu"), &allowed());
    threads.min(cores.unwrap_or(threads)).max(1)
}

/// Cores among the CPUs `allowed`, by what Linux tells of each CPU's siblings; `None` where it does not.
fn physical_cores(cpus: &Path, allowed: &[usize]) -> Option<usize> {
    let siblings: Option<BTreeSet<String>> = allowed
        .iter()
        .map(|cpu| {
            let list = cpus.join(format!("cpu{cpu}/topology/thread_siblings_list"));
            std::fs::read_to_string(list).ok()
        })
        .collect();
    siblings.map(|cores| cores.len()).filter(|&cores| cores > 0)
}

/// The CPUs that this process may run on.
#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    // SAFETY: a set of CPUs is a plain array of bits, and the call writes no more than its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Vec::new();
        }
        set
    };
    // SAFETY: every index is below the set's size.
    (0..libc::CPU_SETSIZE as usize)
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<usize> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_core_count_once() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, siblings) in [(0, "0,4"), (1, "1,5"), (4, "0,4"), (5, "1,5")] {
            let folder = dir.path().join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("thread_siblings_list"), siblings).unwrap();
        }
        let cores = |allowed: &[usize]| physical_cores(dir.path(), allowed);
        assert_eq!(cores(&[0, 1, 4, 5]), Some(2));
        assert_eq!(cores(&[0, 4]), Some(1));
        assert_eq!(cores(&[1, 4]), Some(2));
        // A machine that does not tell.
        assert_eq!(cores(&[0, 7]), None);
        assert_eq!(cores(&[]), None);
    }

    #[test]
    fn there_is_a_core() {
        let cores = usable_cores();
        assert!(cores >= 1 && cores <= std::thread::available_parallelism().unwrap().get());
    }
}
