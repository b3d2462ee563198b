//! How many files and connections the process may have open.

/// Descriptors that a server with many clients has use for.
const WANTED: u64 = 8192;

/// Descriptors that are not connections: weights, the engine's, the runtime's.
const OTHERS: u64 = 128;

/// A connection has two: its own, and the one that sees its client hang up.
const EACH: u64 = 2;

/// Most connections at a time, whatever the system allows.
const MOST: u64 = 1024;

/// Fewest: where this does not suffice the system says so.
const FEWEST: u64 = 16;

/// Connections that may be open at a time. Raises the process's own limit as far as that is allowed.
pub fn connections() -> usize {
    let allowed = raised().unwrap_or(FEWEST);
    let connections = allowed.saturating_sub(OTHERS) / EACH;
    connections.clamp(FEWEST, MOST) as usize
}

/// The limit after it was raised; `None` where the system does not say.
fn raised() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: fills the structure that it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    let wanted = limit.rlim_max.min(WANTED);
    if wanted <= limit.rlim_cur {
        return Some(limit.rlim_cur);
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = wanted;
    // SAFETY: reads the structure that it is given.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    Some(if set == 0 { wanted } else { before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bound_within_what_the_system_allows() {
        let connections = connections() as u64;
        assert!((FEWEST..=MOST).contains(&connections));
        assert_eq!(raised(), raised());
    }
}
