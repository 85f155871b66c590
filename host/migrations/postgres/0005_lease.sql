-- For how long others respect the node's lease: the same on every node, or those with a shorter one would declare
-- others dead that still trust theirs. NULL: registered by a version that does not say.
ALTER TABLE node ADD COLUMN lease_ms BIGINT;
