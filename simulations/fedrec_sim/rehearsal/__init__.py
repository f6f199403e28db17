"""`fedrec rehearse`: a coordinator and partners as real processes on this machine, with faults, checked afterwards."""
