use stopcock::Generator;

struct Lines {
    lines: Generator<String, _>,
}

fn main() {}
