//! Try-out.
use futures::StreamExt;
use stopcock::{CancelStreamExt, generator, signal, testing::laws};

#[test]
fn ours() {
    laws::check_all(|source, stop| source.take_until_cancelled(stop.token()));
    laws::check_all(|source, stop| {
        source.take_until_cancelled(signal::when(stop.token().cancelled_owned()))
    });
    laws::check_all(|source, stop| {
        Box::pin(generator(stop.token(), async move |mut y| {
            let mut source = source;
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
        }))
    });
    #[cfg(feature = "tokio")]
    laws::check_all(|source, stop| source.with_deadline(stop.deadline()));
    #[cfg(feature = "tokio")]
    laws::check_all(|source, stop| source.with_timeout(stop.timeout()));
    #[cfg(feature = "tokio")]
    laws::check_all(|source, stop| {
        source.take_until_cancelled(stopcock::CancellationToken::with_timeout(stop.timeout()))
    });
}

#[test]
fn peer() {
    for broken in
        laws::report_stop(|source, stop| source.take_until(stop.token().cancelled_owned())).broken()
    {
        println!("{broken}\n");
    }
}
