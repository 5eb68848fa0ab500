//! The words that generated posts are made of.

/// What posts are about.
pub(super) struct Topic {
    pub(super) name: &'static str,
    /// Completes "after a year of …".
    pub(super) doing: [&'static str; 5],
    /// Completes "the trick: …".
    pub(super) lesson: [&'static str; 4],
    /// A sentence without its full stop.
    pub(super) result: [&'static str; 4],
}

pub(super) const TOPICS: [Topic; 10] = [
    Topic {
        name: "balcony gardens",
        doing: [
            "growing beans in old gutters",
            "saving rain in paint buckets",
            "planting herbs under a street lamp",
            "raising tomatoes from kitchen scraps",
            "keeping bees on a fourth floor",
        ],
        lesson: [
            "water in the evening, never at noon",
            "let the weakest seedling go first",
            "feed the soil and not the plant",
            "plant what the sparrows dislike",
        ],
        result: [
            "The whole street came to look",
            "There were peppers until November",
            "The landlord asked for a second one",
            "Not one plant came from a shop",
        ],
    },
    Topic {
        name: "running late in life",
        doing: [
            "running before sunrise",
            "training for a first ten kilometres",
            "walking every hill in town",
            "racing the night bus home",
            "stretching between two shifts",
        ],
        lesson: [
            "slow days make the fast ones",
            "rest is part of the plan",
            "shoes matter less than sleep",
            "a friend at the corner beats any app",
        ],
        result: [
            "The doctor took the file back out to check",
            "Last place never felt this good",
            "Half the office runs now",
            "The stairs have become a joke",
        ],
    },
    Topic {
        name: "small kitchens",
        doing: [
            "baking bread on a camping stove",
            "cooking for nine with two pans",
            "turning leftovers into soup",
            "fermenting cabbage under the bed",
            "making noodles with a broom handle",
        ],
        lesson: [
            "salt early and taste twice",
            "a cold pan forgives nothing",
            "write the recipe down while it is still wrong",
            "patience is the missing spice",
        ],
        result: [
            "The pot was empty in four minutes",
            "Grandmother asked for the recipe",
            "The smoke alarm stayed quiet for once",
            "A queue formed on the stairs",
        ],
    },
    Topic {
        name: "repair cafes",
        doing: [
            "mending radios for the neighbours",
            "fixing umbrellas nobody wanted back",
            "giving old bicycles a second winter",
            "sewing zips into rescued coats",
            "reviving a washing machine from 1987",
        ],
        lesson: [
            "the cheapest screw breaks first",
            "take a picture before you open anything",
            "most broken things are only dirty",
            "ask what it used to sound like",
        ],
        result: [
            "It hums again, a little out of tune",
            "The bin men have less to carry",
            "Forty coats found new shoulders",
            "The queue now reaches the bakery",
        ],
    },
    Topic {
        name: "learning languages",
        doing: [
            "learning Portuguese from football radio",
            "reading one foreign page a day",
            "speaking badly on purpose",
            "labelling every drawer in Polish",
            "writing letters to a stranger in Lyon",
        ],
        lesson: [
            "nobody minds your accent except you",
            "ten minutes daily beat a long Sunday",
            "jokes come before grammar",
            "say it wrong and be corrected for free",
        ],
        result: [
            "The market women laugh at the right moment now",
            "The first dream in another language had subtitles",
            "A wedding invitation came in the post",
            "Ordering coffee took one sentence instead of five",
        ],
    },
    Topic {
        name: "first jobs",
        doing: [
            "answering phones at a ferry office",
            "stacking shelves through the night",
            "teaching chess to five-year-olds",
            "delivering flowers in the rain",
            "keeping the books of a choir",
        ],
        lesson: [
            "learn the cleaner's name first",
            "say when you do not know",
            "be early once and on time forever",
            "keep a list of small wins",
        ],
        result: [
            "The boss still tells the story",
            "It paid for the first guitar",
            "Nobody missed the boat that summer",
            "Three customers came to the graduation",
        ],
    },
    Topic {
        name: "quiet evenings",
        doing: [
            "leaving the phone in the hallway",
            "reading aloud to a tired dog",
            "listening to one record from start to end",
            "writing three lines before bed",
            "watching the harbour instead of a screen",
        ],
        lesson: [
            "boredom is only the first ten minutes",
            "put the charger in another room",
            "a candle is a good clock",
            "choose the book before dinner",
        ],
        result: [
            "Sleep came back within a week",
            "The dog has opinions on Tolstoy",
            "The children asked for a second chapter",
            "Nobody called, and that was fine",
        ],
    },
    Topic {
        name: "village football",
        doing: [
            "coaching a team without a pitch",
            "drawing the lines with flour",
            "washing eleven shirts in one sink",
            "losing every match of a season",
            "building goals from scaffolding",
        ],
        lesson: [
            "praise the pass and not the goal",
            "let the smallest one take the penalty",
            "bring oranges and a pump",
            "count friends before points",
        ],
        result: [
            "The final score was the least of it",
            "Both teams sang on the way home",
            "The referee asked to join",
            "There is grass there now",
        ],
    },
    Topic {
        name: "letters and archives",
        doing: [
            "sorting a shoebox of war letters",
            "tracing a name on a bridge",
            "restoring photographs from a flood",
            "asking grandparents one question a week",
            "copying recipes from a ship's log",
        ],
        lesson: [
            "read the back of every picture",
            "the boring pages tell the most",
            "write dates where others will look",
            "ask while there is time",
        ],
        result: [
            "A cousin turned up in Halifax",
            "The town has put up a plaque",
            "One page explained forty years",
            "The handwriting matched",
        ],
    },
    Topic {
        name: "city wildlife",
        doing: [
            "counting swifts from a car park",
            "leaving a hedge uncut",
            "following a fox along the tram line",
            "building ramps for hedgehogs",
            "listening for owls on the late shift",
        ],
        lesson: [
            "sit still longer than feels polite",
            "messy corners are nurseries",
            "turn off one lamp",
            "look up before you look it up",
        ],
        result: [
            "Four chicks left the nest in June",
            "The tram drivers now slow down",
            "The hedge hums from April on",
            "The fox has a nickname and a fan club",
        ],
    },
];

pub(super) const WHO: [&str; 18] = [
    "a night nurse",
    "a retired welder",
    "two sisters from the coast",
    "a bus driver",
    "my upstairs neighbour",
    "a shy apprentice",
    "a village librarian",
    "a former sailor",
    "three flatmates",
    "a maths teacher",
    "the woman from the kiosk",
    "a postman on line 9",
    "an unlucky goalkeeper",
    "a tired young father",
    "a crane operator",
    "our church organist",
    "a student with no money",
    "a grandmother of seven",
];

pub(super) const TIME: [&str; 10] = [
    "one winter",
    "six weeks",
    "a hundred days",
    "eleven months",
    "two years",
    "a single weekend",
    "forty lunch breaks",
    "one long summer",
    "nine Tuesdays",
    "half a lifetime",
];

/// `{who}`, `{doing}`, `{time}`, `{lesson}`, `{result}`, `{topic}` and `{n}` are filled in; a sentence that
/// starts with one begins with a capital letter.
pub(super) const HOOKS: [&str; 16] = [
    "{who} spent {time} {doing}. {result}",
    "Nobody asked {who} about {doing}, until now",
    "{n} things {who} found out by {doing}",
    "What {time} of {doing} does to you",
    "The quiet trick of {doing}: {lesson}",
    "{result}. It began with {doing}",
    "Meet {who}, and forget what you know of {topic}",
    "“{lesson}”, says {who} after {time} of {doing}",
    "Why {who} will not stop {doing}",
    "{time} of {doing}, told in {n} pictures",
    "You can start {doing} tonight. Here is what {who} would tell you",
    "They laughed at {who} for {doing}. {result}",
    "{doing} looks easy. Ask {who} how the first {n} tries went",
    "Before you give up on {topic}, remember this: {lesson}",
    "How {doing} brought {who} and {n} strangers together",
    "{who}, {time} and one idea: {doing}",
];

pub(super) const INPUTS: [&str; 8] = [
    "A post about {doing}",
    "Tell the story of {who} and {topic}",
    "Something warm on {topic}, please",
    "What can people learn from {doing}?",
    "{topic}: the lesson is that one should {lesson}",
    "Write for people who have never tried {doing}",
    "An honest post about {time} of {doing}",
    "Make {topic} sound like an adventure",
];

pub(super) const OPENINGS: [&str; 8] = [
    "It started with a rainy afternoon and nothing on television.",
    "{who} did not plan any of this.",
    "For {time}, {doing} was simply what came after work.",
    "The first attempt went wrong in {n} different ways.",
    "Nobody on our street talks about {topic}, or so I thought.",
    "I met {who} by accident, at a tram stop.",
    "There is a photograph that explains it better than I can.",
    "Ask around and you will hear {n} versions of this story.",
];

pub(super) const MIDDLES: [&str; 10] = [
    "What helped was a simple rule: {lesson}.",
    "After {time}, something had changed.",
    "Friends brought tools, cake and a lot of advice about {doing}.",
    "The costs came to less than {n} euros, most of it for coffee.",
    "“{lesson}”, the note on the fridge said.",
    "Some days it rained, and {who} went out all the same.",
    "There is no secret to {topic}, only repetition.",
    "By then, {n} people had asked whether they could join.",
    "The hardest part was not {doing}, it was starting.",
    "Then, on an ordinary Thursday, {who} smiled for the first time.",
];

pub(super) const ENDINGS: [&str; 6] = [
    "{result}.",
    "{result}, and that was only the beginning.",
    "If you try one thing this week, try {doing}.",
    "Tell us: what would you have done?",
    "{result}. We would call that a good year.",
    "Next time somebody mentions {topic}, you will know whom to ask.",
];
