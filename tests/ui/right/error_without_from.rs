use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::fmt::Error;
use stopcock::{CancelTryStreamExt, CancellationToken, try_generator};

async fn next(token: &CancellationToken) {
    let items = stream::iter([Ok::<u32, Error>(1)]);
    let _ = items
        .try_with_cancellation(token)
        .map_stop(|_| Error)
        .next()
        .await;
}

async fn generator(token: &CancellationToken) -> Result<Vec<u32>, Error> {
    let items = try_generator(token, async |mut y| -> Result<(), Error> {
        y.yield_item(1).await;
        Ok(())
    });
    items.map_stop(|_| Error).try_collect().await
}

fn returned(token: &CancellationToken) -> impl Stream<Item = Result<u32, Error>> + use<> {
    stream::iter([Ok::<u32, Error>(1)])
        .try_with_cancellation(token)
        .map_stop(|_| Error)
}

fn main() {
    let token = CancellationToken::new();
    let _ = (next(&token), generator(&token), returned(&token));
}
