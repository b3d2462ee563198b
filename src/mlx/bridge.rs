//! The `cxx` bridge.

#[cxx::bridge(namespace = "mlxcel")]
pub(crate) mod ffi {
    unsafe extern "C++" {
        include!("bridge.h");

        /// The version of the `libmlx` that is loaded.
        fn mlx_version() -> String;
    }
}
