-- Where the picture of a group is: a URL. NULL: it has none.
ALTER TABLE chat_rooms ADD COLUMN picture TEXT;
