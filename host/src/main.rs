//! The `stead` binary. Everything is in `stead::cli`.

fn main() -> std::process::ExitCode {
    stead::cli::main()
}
