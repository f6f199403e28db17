"""From the partners' adapter differences to the next adapter. numpy only: the coordinator has no torch."""
