//! Memory of this process.

/// Bytes of it that are in RAM, memory-mapped weights included; `None` where the system does not say.
#[cfg(target_os = "linux")]
pub fn bytes() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = counts.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: takes and returns a plain number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    pages.checked_mul(page)
}

/// Bytes of it that are in RAM, memory-mapped weights included; `None` where the system does not say.
#[cfg(target_os = "macos")]
pub fn bytes() -> Option<u64> {
    let pid = i32::try_from(std::process::id()).ok()?;
    // SAFETY: plain numbers and bytes, for which zero is a value.
    let mut usage: libc::rusage_info_v2 = unsafe { std::mem::zeroed() };
    let buffer = (&raw mut usage).cast::<libc::rusage_info_t>();
    // SAFETY: the flavour says what the buffer is, and the call fills no more than that.
    let status = unsafe { libc::proc_pid_rusage(pid, libc::RUSAGE_INFO_V2, buffer) };
    (status == 0).then_some(usage.ri_resident_size)
}

/// Not known on this system.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn bytes() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    /// Against what the system says of the most that it ever was; other tests run beside this one.
    #[test]
    fn it_is_what_is_written_to_and_no_more_than_the_most_there_was() {
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let resident = super::bytes().unwrap();
        // SAFETY: plain numbers, for which zero is a value, and which the call fills.
        let most = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
            u64::try_from(usage.ru_maxrss).unwrap()
        };
        // Linux counts KiB, and late: a thread's last pages are added when it is switched.
        let most = if cfg!(target_os = "linux") {
            most << 10
        } else {
            most
        };
        assert!(resident >= block.len() as u64);
        assert!(resident <= most + (16 << 20), "{resident} {most}");
        drop(block);
    }
}
