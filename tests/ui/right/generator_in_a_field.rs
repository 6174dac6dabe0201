use futures::{Stream, stream::BoxStream};
use stopcock::{CancellationToken, Yielder, generator};

struct Boxed {
    lines: BoxStream<'static, String>,
}

struct Generic<S: Stream<Item = String>> {
    lines: S,
}

fn main() {
    let token = CancellationToken::new();
    let lines = async |mut y: Yielder<'_, String>| y.yield_item("a".to_owned()).await;
    let boxed = Boxed {
        lines: Box::pin(generator(&token, lines)),
    };
    let generic = Generic {
        lines: generator(&token, lines),
    };
    let _ = (boxed.lines, generic.lines);
}
