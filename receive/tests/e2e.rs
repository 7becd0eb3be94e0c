//! The real binary, driven from outside: clients, kills, other programs on the same directories.

mod e2e {
    mod harness;

    mod bad_input;
    mod blocks;
    mod kill;
    mod prometheus;
    mod takeover;
    mod vmagent;
}
