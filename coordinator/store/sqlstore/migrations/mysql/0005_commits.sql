-- Commits cost the server less: retention and counts of what is finished read
-- amends_live, which has all of it.
--
-- A program of the schema before asks for the index that is gone, and does not
-- know what a coordinator of this one has called ahead of what it stored: stop
-- them all before the first of this one starts.
ALTER TABLE amends_transactions DROP KEY amends_ended;
