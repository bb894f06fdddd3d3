# Shared by the scripts in ci/; read with `.` from the root of the checkout.

# The oldest Rust that builds the workspace.
rust_needed() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml
}

# True when version $1 is at least $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# True when a cargo that is new enough answers; chooses rustup's stable toolchain when the default one is too old.
rust_ready() {
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
    for toolchain in "${RUSTUP_TOOLCHAIN:-}" stable; do
        found=$(RUSTUP_TOOLCHAIN=$toolchain cargo --version 2>/dev/null | cut -d ' ' -f 2)
        if [ -n "$found" ] && at_least "$found" "$(rust_needed)"; then
            if [ -n "$toolchain" ]; then
                RUSTUP_TOOLCHAIN=$toolchain
                export RUSTUP_TOOLCHAIN
            fi
            return 0
        fi
    done
    return 1
}

# Where cargo puts the release binaries.
release_dir() {
    echo "${CARGO_TARGET_DIR:-target}/release"
}
