"""The ground: what every stage may use and no room of a stage knows more of than it needs."""
