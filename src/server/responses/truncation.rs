//! `truncation: "auto"`: a conversation that is too long loses its oldest turns.

use serde_json::Value;

use crate::server::conversation::Conversation;
use crate::server::error::ApiError;
use crate::server::model::ServedModel;

/// Drops as many of the oldest turns as it takes for the prompt to have at most `most` tokens. System
/// messages at the beginning and the last turn stay; if they alone are too long, so is the prompt.
pub fn fit(
    conversation: Conversation,
    model: &ServedModel,
    most: usize,
) -> Result<Conversation, ApiError> {
    let Some(messages) = conversation.messages.as_array() else {
        return Ok(conversation);
    };
    let turns = Turns::of(messages);
    let fits = |dropped: usize| {
        let shorter = Conversation {
            messages: turns.without(messages, dropped),
            ..conversation.clone()
        };
        let tokens = shorter.tokens(model)?;
        Ok::<_, ApiError>(tokens.len() <= most)
    };
    // Fewer turns are fewer tokens, so the least number to drop is found by halving.
    let (mut low, mut high) = (0, turns.starts.len().saturating_sub(1));
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let messages = turns.without(messages, low);
    Ok(Conversation {
        messages,
        ..conversation
    })
}

/// Where turns begin: at the messages of the user.
struct Turns {
    head: usize,
    starts: Vec<usize>,
}

impl Turns {
    fn of(messages: &[Value]) -> Self {
        let is = |message: &Value, role: &str| message["role"] == role;
        let head = messages.iter().take_while(|message| is(message, "system"));
        let head = head.count();
        let users = messages.iter().enumerate().skip(head);
        let users = users.filter(|(_, message)| is(message, "user"));
        let mut starts: Vec<usize> = users.map(|(index, _)| index).collect();
        // What stands before the first question goes with the first drop.
        if let Some(first) = starts.first_mut() {
            *first = head;
        }
        Self { head, starts }
    }

    fn without(&self, messages: &[Value], dropped: usize) -> Value {
        let start = self.starts.get(dropped).copied().unwrap_or(self.head);
        let kept = messages.iter().take(self.head);
        kept.chain(messages.iter().skip(start)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_turns_are_dropped_behind_the_system_messages() {
        let roles = [
            "system",
            "assistant",
            "user",
            "assistant",
            "tool",
            "user",
            "assistant",
            "user",
        ];
        let messages: Vec<Value> = roles.iter().map(|role| json!({"role": role})).collect();
        let turns = Turns::of(&messages);
        let left = |dropped| {
            let left = turns.without(&messages, dropped);
            left.as_array().unwrap().len()
        };
        assert_eq!(turns.starts, [1, 5, 7]);
        assert_eq!([left(0), left(1), left(2)], [8, 4, 2]);
        let none = Turns::of(&messages[..2]);
        assert_eq!(none.without(&messages[..2], 0).as_array().unwrap().len(), 2);
    }
}
