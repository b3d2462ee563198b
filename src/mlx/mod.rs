//! The only place that knows C++: a small bridge to `libmlx` and a safe [`Array`] over it.

mod bridge;
