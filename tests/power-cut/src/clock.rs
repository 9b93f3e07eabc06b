//! A wall clock that is off by `COURIER_TEST_CLOCK_OFFSET` seconds. Other clocks are right.

use std::ffi::c_int;
use std::sync::OnceLock;

/// Reads a clock, as the function of the C library does.
///
/// # Safety
///
/// `time` must point to a writable `timespec`, or be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: the caller keeps the contract of clock_gettime.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the system has written the time.
        if let Some(time) = unsafe { time.as_mut() } {
            time.tv_sec += offset();
        }
    }
    result
}

fn offset() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET
        .get_or_init(|| std::env::var("COURIER_TEST_CLOCK_OFFSET").ok().and_then(|text| text.parse().ok()).unwrap_or(0))
}
