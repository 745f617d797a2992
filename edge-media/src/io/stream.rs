//! The shell of a voice agent's door.
