//! Compiles the C++ bridge against the headers of the `mlx` wheel and links the wheel's `libmlx`.
//!
//! The wheel is looked for in the checkout's `.venv`, then in an activated environment, then in
//! whatever `python3` imports. The run-time search path is relative to the binary, so that a
//! checkout can be moved and a wheel needs no path of the machine that built it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What Rust may ask of MLX.
const BRIDGE: &str = "src/mlx/bridge";

/// The kernels of the CPU.
const KERNELS: &str = "src/mlx/kernels";

const BRIDGE_FILES: [&str; 11] = [
    "array",
    "composed",
    "device",
    "experts",
    "fast",
    "kernels",
    "matrix",
    "ops",
    "per_row",
    "products",
    "recurrent",
];

/// What makes nodes of MLX's graph, on every machine alike.
const PRIMITIVE_FILES: [&str; 10] = [
    "attention_primitive",
    "cached_attention_primitive",
    "expert_primitives",
    "heads_primitive",
    "join_primitive",
    "layer_primitives",
    "product_primitives",
    "recurrent_graph",
    "recurrent_primitives",
    "routing_primitive",
];

/// Instruction sets, each compiled from a file of its own with its own flags: what one of them may
/// use must not find its way into what every machine runs.
const ISAS: [(&str, &[&str]); 6] = [
    ("avx512", &AVX512),
    ("avx512_vnni", &AVX512_VNNI),
    ("avx2", &["-mavx2", "-mfma", "-mf16c"]),
    ("avx2_vnni", &["-mavx2", "-mfma", "-mf16c", "-mavxvnni"]),
    ("neon", &[]),
    ("portable", &[]),
];

const AVX512: [&str; 6] = [
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mfma",
    "-mf16c",
];

const AVX512_VNNI: [&str; 7] = [
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mfma",
    "-mf16c",
    "-mavx512vnni",
];

fn main() {
    let root = cargo_variable("CARGO_MANIFEST_DIR");
    let mlx = find_mlx(&root).unwrap_or_else(|looked| {
        panic!(
            "no `mlx` wheel (with include/ and lib/) found; run `make setup`. Looked in:\n{}",
            looked.join("\n")
        )
    });

    build_kernels(&root);
    cxx_build::bridge("src/mlx/bridge.rs")
        .files(BRIDGE_FILES.map(|name| format!("{BRIDGE}/{name}.cc")))
        .files(PRIMITIVE_FILES.map(|name| format!("{KERNELS}/{name}.cpp")))
        .include("src/mlx")
        .include(mlx.join("include"))
        .std("c++20")
        .flag_if_supported("-Wno-unused-parameter")
        .flag_if_supported("-Wno-deprecated-copy")
        // Assertions in headers name their file; a wheel has no business with our folders.
        .flag_if_supported(format!("-ffile-prefix-map={}=.", root.display()))
        .compile("mlxcel_bridge");

    let lib = mlx.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=mlx");
    for rpath in rpaths(&lib) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{rpath}");
    }
    for input in ["build.rs", "src/mlx/bridge.rs", BRIDGE, KERNELS] {
        println!("cargo:rerun-if-changed={input}");
    }
    println!(
        "cargo:rerun-if-changed={}",
        mlx.join("include/mlx/version.h").display()
    );
    println!("cargo:rerun-if-env-changed=VIRTUAL_ENV");
}

/// Compiles the kernels, optimized whatever the profile: without, tests would take minutes.
fn build_kernels(root: &Path) {
    let folder = Path::new(KERNELS);
    let build = || {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++20")
            .opt_level(2)
            .flag("-ftree-vectorize")
            // A product and a sum are fused where the kernel says so, in one row as in many.
            .flag("-ffp-contract=off")
            // False alarms in the headers of GCC 12.
            .flag_if_supported("-Wno-uninitialized")
            .flag_if_supported("-Wno-maybe-uninitialized")
            .flag_if_supported(format!("-ffile-prefix-map={}=.", root.display()));
        build
    };
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    for (isa, flags) in ISAS {
        let mut build = build();
        // Elsewhere the file is empty.
        for flag in flags.iter().filter(|_| x86) {
            build.flag(flag);
        }
        build
            .file(folder.join(format!("isa_{isa}.cpp")))
            .compile(&format!("mlxcel_{isa}"));
    }
    build()
        .file(folder.join("attention_task.cpp"))
        .file(folder.join("table.cpp"))
        .file(folder.join("pool.cpp"))
        .compile("mlxcel_kernels");
}

/// A folder that cargo tells every build script.
fn cargo_variable(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) => PathBuf::from(value),
        None => panic!("{name} is not set: this is a build script, to be run by cargo"),
    }
}

/// The folder of the installed `mlx` package, or every place that was looked at.
fn find_mlx(root: &Path) -> Result<PathBuf, Vec<String>> {
    let mut looked = Vec::new();
    let environments = [
        Some(root.join(".venv")),
        std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
    ];
    for environment in environments.into_iter().flatten() {
        for python in python_folders(&environment.join("lib")) {
            let package = python.join("site-packages/mlx");
            if is_mlx(&package) {
                return Ok(package);
            }
            looked.push(format!("  {}", package.display()));
        }
        looked.push(format!("  {}", environment.display()));
    }
    let script =
        "import importlib.util as u; print(u.find_spec('mlx').submodule_search_locations[0])";
    let answer = Command::new("python3").args(["-c", script]).output();
    if let Ok(output) = answer
        && output.status.success()
    {
        let package = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if is_mlx(&package) {
            return Ok(package);
        }
        looked.push(format!("  {}", package.display()));
    }
    looked.push("  python3 -c 'import mlx'".to_owned());
    Err(looked)
}

fn python_folders(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = lib.read_dir() else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
        .collect()
}

fn is_mlx(package: &Path) -> bool {
    package.join("include/mlx/version.h").is_file() && package.join("lib").is_dir()
}

/// Search paths relative to the binary: inside a wheel, in `target/<profile>`, and one deeper for
/// test binaries.
fn rpaths(lib: &Path) -> Vec<String> {
    let origin = if cfg!(target_os = "macos") {
        "@loader_path"
    } else {
        "$ORIGIN"
    };
    let mut paths = vec![format!("{origin}/../../mlx/lib")];
    // OUT_DIR is target/<profile>/build/<package>/out.
    let out = cargo_variable("OUT_DIR");
    if let Some(profile) = out.ancestors().nth(3) {
        for folder in [profile.to_path_buf(), profile.join("deps")] {
            paths.push(format!("{origin}/{}", relative(&folder, lib).display()));
        }
    }
    paths
}

fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| "..");
    up.map(PathBuf::from)
        .chain(
            to.components()
                .skip(shared)
                .map(|c| PathBuf::from(c.as_os_str())),
        )
        .collect()
}
