/// All sequences of up to `length` of these, shorter ones first: the empty one is the first of all.
pub(crate) fn sequences<T: Clone>(alphabet: &[T], length: usize) -> impl Iterator<Item = Vec<T>> {
    let letters = alphabet.len();
    (0..=length as u32).flat_map(move |length| {
        (0..letters.pow(length)).map(move |number| {
            let letter = |place| alphabet[number / letters.pow(place) % letters].clone();
            (0..length).map(letter).collect()
        })
    })
}
