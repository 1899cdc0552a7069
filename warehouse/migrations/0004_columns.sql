-- The order of the responses in the columns of the file that a judgment came from: agreement can be computed on it, as
-- whoever made the file would.
ALTER TABLE judgment ADD COLUMN column_order INTEGER[];  -- null where the columns say which is better, or unknown
