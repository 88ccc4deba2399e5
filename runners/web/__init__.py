"""What recipe's pages share: their looks, and the charts' library for a page that needs no network."""
